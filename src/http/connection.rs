//! One connection: its requests, one after the other, from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;
use tracing::debug;

use super::stream::{Marks, Patience, Stream};

/// Silence between two requests. Load balancers keep theirs for a minute, and whoever has the
/// shorter patience must be the one that sends: else a request meets a closing connection.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// Start line and headers of one request.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// What a connection is served with.
#[derive(Clone)]
pub(super) struct Serving {
    pub router: Router,
    pub patience: Patience,
    /// Somebody may be waiting for a place.
    pub crowded: Arc<AtomicBool>,
}

impl Serving {
    /// Serves until the peer, its silence or `stop` ends it.
    pub(super) async fn run<S>(self, stream: S, peer: SocketAddr, stop: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let marks = Arc::new(Marks::default());
        let stream = Stream::new(stream, Arc::clone(&marks), self.patience);
        let service = service_fn(move |request| self.clone().answer(request, peer, &marks));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = stop.watch(connection).await {
            debug!(error = &error as &dyn std::error::Error, "A connection broke");
        }
    }

    fn answer(
        self,
        request: Request<Incoming>,
        peer: SocketAddr,
        marks: &Arc<Marks>,
    ) -> impl Future<Output = Result<Response<Answer>, Infallible>> + Send + use<> {
        marks.unread.store(false, Ordering::Relaxed);
        let in_hand = InHand::new(marks);
        let marks = Arc::clone(marks);
        let mut request = request.map(|body| Body::new(Asked { body, marks, ended: false }));
        request.extensions_mut().insert(ConnectInfo(peer));
        async move {
            let Ok(mut response) = self.router.oneshot(request).await;
            // This one has had its turn.
            if self.crowded.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer { body, _in_hand: in_hand }))
        }
    }
}

struct InHand(Arc<Marks>);

impl InHand {
    fn new(marks: &Arc<Marks>) -> Self {
        marks.heads.fetch_add(1, Ordering::Relaxed);
        marks.in_hand.store(true, Ordering::Relaxed);
        Self(Arc::clone(marks))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.store(false, Ordering::Relaxed);
    }
}

/// The body of a request; notes whether it was left before its end.
struct Asked {
    body: Incoming,
    marks: Arc<Marks>,
    ended: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let unread = !self.ended && !hyper::body::Body::is_end_stream(&self.body);
        self.marks.unread.store(unread, Ordering::Relaxed);
    }
}

impl hyper::body::Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.ended |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; the request is in hand until it has ended.
pub(super) struct Answer {
    body: Body,
    _in_hand: InHand,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
