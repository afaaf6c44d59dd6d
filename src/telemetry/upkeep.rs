//! Keeps histograms small where nobody reads the page.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// How often what histograms were given is sorted into their buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Sorts until it is told to stop. Without it a histogram keeps every number until somebody reads
/// the page: 27 bytes a write.
pub async fn keep_small(page: PrometheusHandle, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tick = interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            _ = tick.tick() => page.run_upkeep(),
            () = stop.cancelled() => return Ok(()),
        }
    }
}
