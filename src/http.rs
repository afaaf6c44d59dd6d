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

/// Takes the port, so that a taken one is an error before anything else starts.
pub async fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("listen on http.listen {listen}"))?;
    info!(address = %listener.local_addr()?, "Listening for probes");
    Ok(listener)
}

/// Liveness, readiness and metrics; `missing` names what is missing, and is empty when nothing is.
pub fn probes(
    page: PrometheusHandle,
    missing: impl Fn() -> Vec<String> + Send + Sync + 'static,
) -> Router {
    let missing = Arc::new(missing);
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
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response() }
    };
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Serves until `stop`, and then what is in hand.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    _settings: crate::settings::Http,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
    let stop = async move { stop.cancelled().await };
    axum::serve(listener, service).with_graceful_shutdown(stop).await.context("serve HTTP")
}
