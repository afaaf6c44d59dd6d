//! The page for probes and metrics.
//!
//! Liveness never asks broker or database: a restart would not bring them back.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::worker::Process;

/// Takes the port, so that a taken one is an error before anything else starts.
pub async fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listen on http.listen {listen}"))?;
    info!(address = %listener.local_addr()?, "Listening for probes");
    Ok(listener)
}

/// Serves until `drained`: probes are still answered while the rest drains.
pub async fn serve(
    listener: TcpListener,
    page: PrometheusHandle,
    process: Arc<Process>,
    drained: CancellationToken,
) -> anyhow::Result<()> {
    let ready = move || {
        let missing = process.board.missing();
        async move {
            if missing.is_empty() {
                (StatusCode::OK, "ready\n".to_owned())
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", missing.join("\n")))
            }
        }
    };
    let metrics = move || {
        page.run_upkeep();
        let text = page.render();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response() }
    };
    let router = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    let stop = async move { drained.cancelled().await };
    axum::serve(listener, router).with_graceful_shutdown(stop).await.context("serve probes")
}
