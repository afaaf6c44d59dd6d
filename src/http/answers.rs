//! What every answer carries, whoever gives it.
//!
//! Owns: the request's names, the headers that keep browsers from guessing, the access log, and
//! that a panic is one failed request.
//! Never: logs a path or a query; there are business keys in them.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{debug, error};

use super::request_id::{self, RequestId};
use super::trace_context::{TRACEPARENT, TraceContext};
use crate::telemetry::traces;

/// Set where the handler has not set it itself.
const DEFAULTS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
];

/// Over TLS: a browser that was here once comes back over TLS only, for a year.
const TLS_ONLY: (HeaderName, &str) = (STRICT_TRANSPORT_SECURITY, "max-age=31536000");

/// Puts it around a router. [`super::serve`] does so; a test without a server may.
pub fn with_answers(router: Router, tls: bool) -> Router {
    router.layer(middleware::from_fn(move |request, next| answer(request, next, tls)))
}

async fn answer(mut request: Request, next: Next, tls: bool) -> Response {
    let started = Instant::now();
    let request_id = RequestId::of(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("-", MatchedPath::as_str);
    let trace = TraceContext::of(request.headers(), |caller| {
        traces::accept(caller, method.as_str(), route)
    });
    request.extensions_mut().insert(request_id.clone());
    request.extensions_mut().insert(trace.clone());

    // Nothing of a handler's is seen again after its panic but locks, and their users look past
    // the poison.
    let ended =
        AssertUnwindSafe(traces::within(&trace.span, next.run(request))).catch_unwind().await;
    let mut response = ended.unwrap_or_else(|panic| {
        let (RequestId(request_id), trace_id) = (&request_id, trace.trace_id());
        error!(route, request_id, trace_id, "A handler panicked: {}", words(&*panic));
        broken(trace_id)
    });

    if let Some((code, detail)) = nowhere(&response) {
        let problem = problem(response.status(), code, detail, trace.trace_id());
        // What it carries beside, as `Allow`, stays.
        let mut headers = std::mem::take(response.headers_mut());
        headers.remove(CONTENT_LENGTH);
        response = problem;
        response.headers_mut().extend(headers);
    }
    traces::answered(&trace.span, response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(request_id::HEADER, request_id.value());
    headers.insert(TRACEPARENT, trace.value());
    set_defaults(headers, tls);
    debug!(
        %method, route, status = response.status().as_u16(),
        duration_ms = started.elapsed().as_millis(),
        request_id = request_id.0, trace_id = trace.trace_id(), span_id = trace.span_id(),
        "Answered"
    );
    response
}

fn set_defaults(headers: &mut HeaderMap, tls: bool) {
    for (name, value) in DEFAULTS.into_iter().chain(tls.then_some(TLS_ONLY)) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

fn broken(trace_id: &str) -> Response {
    let detail = "a fault of keylane's own; its log says more, under this trace_id";
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail, trace_id)
}

/// What the router has to say, which it says without a word.
fn nowhere(response: &Response) -> Option<(&'static str, &'static str)> {
    if response.headers().contains_key(CONTENT_TYPE) {
        return None;
    }
    match response.status() {
        StatusCode::NOT_FOUND => Some(("no_such_path", "there is nothing under this path")),
        StatusCode::METHOD_NOT_ALLOWED => {
            Some(("method_not_allowed", "this path takes the methods that `Allow` names"))
        }
        _ => None,
    }
}

/// RFC 9457, in the form of the ingress's other errors.
fn problem(status: StatusCode, code: &str, detail: &str, trace_id: &str) -> Response {
    let body = serde_json::json!({
        "type": format!("/problems/{code}"),
        "title": status.canonical_reason().unwrap_or(code),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "trace_id": trace_id,
    });
    (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    fn router(tls: bool) -> Router {
        let names = |Extension(RequestId(id)): Extension<RequestId>,
                     Extension(trace): Extension<TraceContext>| async move {
            format!("{id} {}", trace.traceparent)
        };
        let router = Router::new()
            .route("/names/{key}", get(names))
            .route("/kept", get(|| async { [(CACHE_CONTROL, "max-age=1")] }))
            .route("/panics", get(async || -> &'static str { panic!("secret") }));
        with_answers(router, tls)
    }

    async fn ask(tls: bool, path: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header("x-request-id", "r-1").body(Body::empty());
        let response = router(tls).oneshot(request.unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 9999).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_answer_carries_its_names_and_what_browsers_need() {
        for (path, status) in
            [("/names/k", 200), ("/kept", 200), ("/nowhere", 404), ("/panics", 500)]
        {
            for tls in [false, true] {
                let (got, headers, body) = ask(tls, path).await;
                assert_eq!(got, status, "{path}");
                assert_eq!(headers["x-request-id"], "r-1", "{path}");
                assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
                let csp = "default-src 'none'; frame-ancestors 'none'";
                assert_eq!(headers["content-security-policy"], csp, "{path}");
                assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
                let cache = if path == "/kept" { "max-age=1" } else { "no-store" };
                assert_eq!(headers["cache-control"], cache, "{path}");
                assert_eq!(headers.contains_key("strict-transport-security"), tls, "{path}");
                let traceparent = headers["traceparent"].to_str().unwrap();
                if path == "/names/k" {
                    assert_eq!(body, format!("r-1 {traceparent}"), "as the handler sees them");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_no_route_takes_is_a_problem() {
        for (method, path, code) in
            [("GET", "/nowhere", "no_such_path"), ("POST", "/kept", "method_not_allowed")]
        {
            let request = Request::builder().method(method).uri(path).body(Body::empty());
            let response = router(false).oneshot(request.unwrap()).await.unwrap();
            let (head, body) = response.into_parts();
            assert_eq!(head.headers["content-type"], "application/problem+json", "{path}");
            let allowed = head.headers.get("allow").map(|value| value.to_str().unwrap());
            assert_eq!(allowed, (code == "method_not_allowed").then_some("GET,HEAD"), "{path}");
            let body = axum::body::to_bytes(body, 9999).await.unwrap();
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["code"], code, "{path}");
            assert_eq!(problem["status"], head.status.as_u16(), "{path}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_can_be_found_in_the_log_and_tells_nothing_else() {
        let (status, headers, body) = ask(false, "/panics").await;
        assert_eq!(status, 500);
        assert_eq!(headers["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        let traceparent = headers["traceparent"].to_str().unwrap();
        assert_eq!(problem["code"], "internal");
        assert_eq!(problem["type"], "/problems/internal");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{body}");
        assert_eq!(problem["status"], 500);
        assert!(traceparent.contains(problem["trace_id"].as_str().unwrap()));
        assert!(!body.contains("secret"), "{body}");
    }
}
