//! The pages for probes and metrics.
//!
//! Liveness never asks broker or database: a restart would not bring them back.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

/// `/livez`, `/readyz` and `/metrics`; `missing` says what a process lacks, nothing when ready.
pub fn router(
    page: PrometheusHandle,
    missing: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
) -> Router {
    let ready = move || {
        let missing = missing();
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
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}
