//! The calls of `/v1`.
//!
//! Owns: which path is which call. What a path names is decoded by `target`, not by the router: a
//! key may hold an encoded slash.

mod bulk;
mod read;
mod write;

pub(super) use bulk::NoOutcome;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{ConnectInfo, OriginalUri, Path, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

use crate::core::message::Properties;
use crate::http::TraceContext;

use super::Ingress;
use super::auth::{Denied, Scope};
use super::code::Own;
use super::pages;
use super::places::{Place, Places};
use super::problem::Problem;
use super::target;

/// The calls of `/v1`, and what explains them to anybody.
pub fn router(ingress: Arc<Ingress>) -> Router {
    let nowhere = async || no_such_path();
    Router::new()
        .route("/v1/{*path}", any(call))
        .route("/openapi.json", get(openapi))
        .route("/problems/{code}", get(page))
        .fallback(nowhere)
        .with_state(ingress)
}

async fn openapi(State(ingress): State<Arc<Ingress>>) -> Response {
    let text = ingress.openapi.text(&ingress.catalogue.entities());
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

async fn page(Path(code): Path<String>) -> Response {
    match pages::of(&code) {
        Some(page) => ([(CONTENT_TYPE, "text/markdown; charset=utf-8")], page).into_response(),
        None => Problem::new(Own::NoSuchPath, "no problem has this code").into_response(),
    }
}

/// Everything that a call may look at.
pub(super) struct Call<'a> {
    pub ingress: &'a Ingress,
    pub method: Method,
    pub headers: HeaderMap,
    /// Rows may be shown.
    pub reads: bool,
    /// Goes on with the message.
    pub trace: Option<TraceContext>,
    /// The decoded segments behind `/v1/`.
    pub segments: Vec<String>,
}

async fn call(
    State(ingress): State<Arc<Ingress>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Response {
    let trace = request.extensions().get::<TraceContext>();
    let trace_id = trace.map(|trace| trace.trace_id().to_owned());
    let version = request.version();
    let answered = answer(&ingress, peer, uri.path(), request).await;
    let mut response = answered.unwrap_or_else(|mut problem| {
        problem.trace_id = trace_id;
        ingress.metrics.problem(problem.code);
        problem.into_response()
    });
    // Whoever keeps a connection would come back on it to a process that takes nothing more.
    if ingress.draining.load(Ordering::Relaxed) && version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(
    ingress: &Arc<Ingress>,
    peer: SocketAddr,
    path: &str,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let segments = target::segments(path).map_err(|rejection| Problem::rejected(&rejection))?;
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    let call = |scopes: &[Scope]| -> Result<Call<'_>, Problem> {
        let authorization = parts.headers.get(AUTHORIZATION);
        ingress.tokens.check(authorization, scopes, peer).map_err(denied)?;
        if let Some(why) = ingress.catalogue.missing() {
            return Err(Problem::new(Own::DatabaseUnavailable, why));
        }
        Ok(Call {
            ingress,
            method: parts.method.clone(),
            headers: parts.headers.clone(),
            reads: ingress.tokens.check(authorization, &[Scope::Read], peer).is_ok(),
            trace: parts.extensions.get::<TraceContext>().cloned(),
            segments: segments.clone(),
        })
    };
    match (parts.method.as_str(), names.as_slice()) {
        ("POST", ["writes"]) => {
            let call = call(&[Scope::Write])?;
            let place = place(ingress, Places::bulk)?;
            bulk::writes(&call, body, ingress, place).await
        }
        ("GET" | "HEAD", ["writes", entity, write_id]) => {
            // Whoever sent a write may ask for its outcome, too.
            let call = call(&[Scope::Read, Scope::Write])?;
            read::outcome(&call, entity, write_id).await
        }
        (_, ["writes"]) => Err(not_allowed("POST")),
        (_, ["writes", ..]) => Err(not_allowed("GET, HEAD")),
        (_, [] | [""] | ["", ..]) => Err(no_such_path()),
        ("POST", [_]) | ("POST" | "PATCH" | "PUT" | "DELETE", [_, _, ..]) => {
            let call = call(&[Scope::Write])?;
            let place = place(ingress, Places::write)?;
            let answer = write::write(&call, body).await;
            drop(place);
            answer
        }
        ("GET" | "HEAD", [_, _, ..]) => read::row(&call(&[Scope::Read])?).await,
        (_, [_]) => Err(not_allowed("POST")),
        (_, _) => Err(not_allowed("GET, HEAD, PATCH, PUT, POST, DELETE")),
    }
}

/// Lets the trace of a request go on with its message.
fn carry_on(trace: Option<&TraceContext>, properties: &mut Properties) {
    let Some(TraceContext { traceparent, tracestate, .. }) = trace.cloned() else { return };
    let headers = &mut properties.headers;
    headers.insert("traceparent".to_owned(), traceparent.into());
    headers.extend(tracestate.map(|state| ("tracestate".to_owned(), state.into())));
}

/// A place among the requests in hand.
fn place(ingress: &Ingress, take: fn(&Places) -> Option<Place>) -> Result<Place, Problem> {
    if ingress.draining.load(Ordering::Relaxed) {
        return Err(Problem::new(Own::Draining, "this process is about to stop"));
    }
    take(&ingress.places).ok_or_else(busy)
}

fn busy() -> Problem {
    Problem::refused(&super::submit::Refusal::Busy)
}

fn denied(denied: Denied) -> Problem {
    let code = match denied {
        Denied::Missing | Denied::Invalid => Own::Unauthorized,
        Denied::Forbidden { .. } | Denied::NotLoopback => Own::Forbidden,
    };
    Problem { challenge: denied.challenge(), ..Problem::new(code, denied.to_string()) }
}

fn not_allowed(methods: &'static str) -> Problem {
    let problem = Problem::new(Own::MethodNotAllowed, format!("this path takes {methods}"));
    Problem { allow: Some(methods), ..problem }
}

fn no_such_path() -> Problem {
    Problem::new(Own::NoSuchPath, "there is nothing under this path")
}
