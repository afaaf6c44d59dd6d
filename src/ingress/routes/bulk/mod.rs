//! Many writes in one request, streamed both ways.
//!
//! Owns: a result an item in the order sent, however it ends; that items of one key are published
//! in that order; and that later items of a key are held back once an earlier one was not
//! confirmed: sending them would apply them before it is sent again.

mod cutter;
mod items;
mod result;
mod run;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures_util::stream::Stream;
use tracing::Instrument;

use crate::ingress::Ingress;
use crate::ingress::answer::say_waited;
use crate::ingress::code::Own;
use crate::ingress::headers::{of_many, plain_body, preferences};
use crate::ingress::places::Place;
use crate::ingress::problem::Problem;

use super::Call;
use cutter::Form;
use items::Items;
use run::Run;

pub(in crate::ingress) use result::NoOutcome;

/// Takes all items, and streams their results back.
pub(super) async fn writes(
    call: &Call<'_>,
    body: Body,
    ingress: &Arc<Ingress>,
    place: Place,
) -> Result<Response, Problem> {
    let form = Form::of(&call.headers)?;
    plain_body(&call.headers)?;
    of_many(&call.headers)?;
    let media = acceptable(&call.headers, form)?;
    let preferences = preferences(&call.headers);
    let http = &ingress.settings.http;
    let most = Duration::from_millis(http.wait_max_ms.get().into());
    let wait = match preferences.wait {
        _ if preferences.respond_async => Duration::ZERO,
        Some(wait) => wait.min(most),
        None => most,
    };
    let mut items = Items::new(body, form, ingress.body_bytes_max(), http);
    items.open().await?;
    let run = Run::new(Arc::clone(ingress), items, call.trace.clone(), wait, place);
    let mut response = Response::new(Body::from_stream(framed(run, form)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    say_waited(response.headers_mut(), &preferences);
    Ok(response)
}

/// The media type of the answer, if the caller takes it.
fn acceptable(headers: &HeaderMap, form: Form) -> Result<&'static str, Problem> {
    let media = match form {
        Form::Lines => "application/x-ndjson",
        Form::Array => "application/json",
    };
    let accepts: Vec<_> =
        headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok()).collect();
    if accepts.is_empty() || takes(&accepts.join(","), media) {
        return Ok(media);
    }
    let detail = format!("the answer comes in the form of the request, {media}");
    Err(Problem::new(Own::NotAcceptable, detail))
}

/// Whether an `Accept` takes this media type: the most exact of its ranges decides.
fn takes(accept: &str, media: &str) -> bool {
    let group = media.split('/').next().unwrap_or_default();
    let ranges = [media.to_owned(), format!("{group}/*"), "*/*".to_owned()];
    let weight = |range: &str| {
        accept.split(',').find_map(|choice| {
            let mut parts = choice.split(';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(range);
            let weight = parts.find_map(|part| {
                let (name, value) = part.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>())
            });
            named.then(|| weight.and_then(Result::ok).unwrap_or(1.0))
        })
    };
    ranges.iter().find_map(|range| weight(range)).is_some_and(|weight| weight > 0.0)
}

/// Results as lines, or as an array. Whoever reads them drives the request: with a reader that is
/// slow nothing more is read or published, and with one that is gone nothing is held.
fn framed(run: Run, form: Form) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let state = Some((run, 0_usize));
    futures_util::stream::unfold(state, move |state| async move {
        let (mut run, count) = state?;
        let mut text = Vec::new();
        let span = run.span();
        if let Some(result) = run.next().instrument(span).await {
            text.extend_from_slice(form.before(count));
            serde_json::to_writer(&mut text, &result).unwrap_or_default();
            text.extend_from_slice(form.after());
            return Some((Ok(Bytes::from(text)), Some((run, count + 1))));
        }
        text.extend_from_slice(form.end(count));
        Some((Ok(Bytes::from(text)), None))
    })
}

#[cfg(test)]
mod tests {
    use super::takes;

    #[test]
    fn an_accept_takes_what_its_most_exact_range_says() {
        let table = [
            ("application/x-ndjson", true),
            ("Application/X-NDJSON; q=0.5", true),
            ("text/html, */*;q=0.1", true),
            ("application/*", true),
            ("*/*;q=0", false),
            ("application/x-ndjson;q=0, */*", false),
            ("application/x-ndjsonx", false),
            ("application/json", false),
            ("", false),
        ];
        for (accept, expected) in table {
            assert_eq!(takes(accept, "application/x-ndjson"), expected, "{accept}");
        }
    }
}
