//! The HTTP server itself, over real sockets: who is cut, who waits, and how it stops.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Router};
use keylane::http::{self, BodyError, RequestId, TraceContext, read_body};
use keylane::settings::Http;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::peer::Peer;
use crate::support::wait;

/// Long for a test, and short for everybody else.
const SHORT_MS: u32 = 300;
/// Shorter than what a slow reader needs for a megabyte, and its own buffer.
const PATIENCE_MS: u32 = 1_000;
const SLOW_RECEIVE_BYTES: u32 = 32 << 10;
/// Larger than what the systems at both ends hold back.
const HUGE_BYTES: usize = 64 << 20;

/// A server of a few pages.
pub(crate) struct Server {
    pub port: u16,
    stop: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
    /// Requests to `/waits` are answered one for each permit.
    gate: Arc<Semaphore>,
    /// A permit for each request that waits there.
    waiting: Arc<Semaphore>,
}

impl Server {
    pub(crate) async fn start(settings: Http) -> Self {
        let listener = http::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let router = pages(Arc::clone(&gate), Arc::clone(&waiting));
        let stop = CancellationToken::new();
        let serving = http::serve(listener, router, &settings, stop.clone()).unwrap();
        Self { port, stop, ended: tokio::spawn(serving), gate, waiting }
    }

    async fn peer(&self) -> Peer<TcpStream> {
        Peer::connect(self.port).await
    }

    pub(crate) async fn stops(self) {
        self.stop.cancel();
        timeout(wait::SOON, self.ended).await.expect("it ends").unwrap().unwrap();
    }
}

fn pages(gate: Arc<Semaphore>, waiting: Arc<Semaphore>) -> Router {
    let waits = move || {
        let (gate, waiting) = (Arc::clone(&gate), Arc::clone(&waiting));
        async move {
            waiting.add_permits(1);
            gate.acquire().await.unwrap().forget();
            "waited"
        }
    };
    let names = |Extension(RequestId(id)): Extension<RequestId>,
                 Extension(trace): Extension<TraceContext>,
                 ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        format!("{id} {} {peer}", trace.trace_id())
    };
    let takes = async |body: Body| {
        let read = read_body(body, 1000, Duration::from_millis(SHORT_MS.into())).await;
        let status = match read {
            Ok(_) => StatusCode::OK,
            Err(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Err(BodyError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Err(BodyError::Broken) => StatusCode::BAD_REQUEST,
        };
        (status, format!("{read:?}"))
    };
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/names", get(names))
        .route("/takes", post(takes))
        .route("/waits", get(waits))
        .route("/huge", get(|| async { vec![b'x'; HUGE_BYTES] }))
        .route("/panics", get(async || -> &'static str { panic!("on purpose") }))
}

/// Patience is short, all else as usual.
pub(crate) fn hasty() -> Http {
    let short = NonZeroU32::new(SHORT_MS).unwrap();
    Http { header_timeout_ms: short, body_timeout_ms: short, ..Http::default() }
}

#[tokio::test]
async fn whoever_does_not_finish_a_head_is_cut_and_whoever_is_idle_is_not() {
    let server = Server::start(hasty()).await;
    let mut idle = server.peer().await;
    assert_eq!(idle.get("/").await.body, "hello");
    for sent in ["", "GET", "GET / HTTP/1.1\r\nhost: localhost\r\nx-more: "] {
        let mut slow = server.peer().await;
        slow.send(sent).await;
        assert_eq!(slow.closed().await, "", "{sent:?}");
    }
    let mut trickles = server.peer().await;
    let (mut reader, mut writer) = trickles.0.split();
    let more = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let cut = async { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await };
    timeout(wait::SOON, async { tokio::join!(more, cut) }).await.expect("it is cut").1.ok();
    assert_eq!(idle.get("/").await.body, "hello", "longer idle than a head may take");
    idle.send("GET / HT").await;
    assert_eq!(idle.closed().await, "", "a later head has its time too");
    server.stops().await;
}

#[tokio::test]
async fn a_body_that_is_slow_large_or_cut_off_is_answered() {
    let server = Server::start(hasty()).await;
    let head =
        |fields: &str| format!("POST /takes HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n\r\n");
    let huge = "x".repeat(HUGE_BYTES / 8);
    let chunked = format!("{:x}\r\n{huge}\r\n0\r\n\r\n", huge.len());
    let announced = format!("content-length: {}", huge.len());
    let pieces = "5\r\nhello\r\n0\r\n\r\n";
    let table = [
        ("content-length: 5", "hello", 200),
        ("transfer-encoding: chunked", pieces, 200),
        ("content-length: 5", "hel", 408),
        ("transfer-encoding: chunked", "5\r\nhel", 408),
        ("transfer-encoding: chunked", "hello", 400),
        // Sent whole before the answer is read: it must still be there.
        (&announced, &huge, 413),
        ("transfer-encoding: chunked", &chunked, 413),
    ];
    for (fields, body, status) in table {
        let mut peer = server.peer().await;
        peer.send(&(head(fields) + body)).await;
        let answer = peer.answer().await;
        assert_eq!(answer.status, status, "{fields}: {answer:?}");
        assert!(answer.header("x-request-id").is_some());
    }
    server.stops().await;
}

#[tokio::test]
async fn one_connection_too_many_waits_for_a_place() {
    let two = NonZeroUsize::new(2).unwrap();
    let server = Server::start(Http { connections_max: two, ..Http::default() }).await;
    let mut stays = server.peer().await;
    assert_eq!(stays.get("/").await.header("connection"), None, "there is a place left");
    let mut first = server.peer().await;
    first.send("GET / HTTP/1.1\r\n").await;
    let mut second = server.peer().await;
    second.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let early = timeout(Duration::from_millis(200), second.0.readable()).await;
    assert!(early.is_err(), "there is no place for another one");
    first.send("host: localhost\r\n\r\n").await;
    let answer = first.answer().await;
    assert_eq!(answer.header("connection"), Some("close"), "others wait: {answer:?}");
    assert_eq!(second.answer().await.body, "hello");
    server.stops().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_loses_its_place() {
    let one = NonZeroUsize::MIN;
    let server = Server::start(Http { connections_max: one, ..hasty() }).await;
    let mut deaf = server.peer().await;
    deaf.send("GET /huge HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    deaf.0.readable().await.unwrap();
    assert_eq!(server.peer().await.get("/").await.body, "hello");
    server.stops().await;
}

#[tokio::test]
async fn whoever_reads_slowly_but_steadily_gets_the_whole_answer() {
    let patience = NonZeroU32::new(PATIENCE_MS).unwrap();
    let server = Server::start(Http { body_timeout_ms: patience, ..Http::default() }).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SLOW_RECEIVE_BYTES).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], server.port).into()).await.unwrap();
    stream.write_all(b"GET /huge HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // As slow as 300 KB/s: a third of what the system would hold by itself takes it some seconds.
    let (mut read, mut piece) = (0, [0; 6_000]);
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..PATIENCE_MS * 3 / 20 {
        pace.tick().await;
        read += stream.read(&mut piece).await.expect("it is not cut off");
    }
    let mut rest = vec![0; 1 << 20];
    while read < HUGE_BYTES {
        let more = timeout(wait::SOON, stream.read(&mut rest)).await.expect("more comes").unwrap();
        assert!(more > 0, "cut off after {read} bytes");
        read += more;
    }
    server.stops().await;
}

#[tokio::test]
async fn a_stop_answers_what_is_in_hand_and_takes_nothing_new() {
    let server = Server::start(Http::default()).await;
    let mut idle = server.peer().await;
    assert_eq!(idle.get("/").await.body, "hello");
    let mut asks = server.peer().await;
    asks.send("GET /waits HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    server.waiting.acquire().await.unwrap().forget();

    server.stop.cancel();
    assert_eq!(idle.closed().await, "", "idle connections are let go");
    let refused = async || TcpStream::connect(("127.0.0.1", server.port)).await.is_err();
    wait::until(wait::SOON, "new connections are refused", refused).await;
    assert!(!server.ended.is_finished(), "something is in hand");
    server.gate.add_permits(1);
    let answer = asks.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "waited"));
    assert_eq!(answer.header("connection"), Some("close"));
    server.stops().await;
}

#[tokio::test]
async fn a_request_keeps_its_names_and_a_panic_is_one_failed_request() {
    let server = Server::start(Http::default()).await;
    let mut peer = server.peer().await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("traceparent: 00-{trace_id}-00f067aa0ba902b7-01");
    let names = format!("x-request-id: r-1\r\n{parent}");
    for (path, status) in [("/names", 200), ("/panics", 500), ("/nowhere", 404), ("/names", 200)] {
        peer.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{names}\r\n\r\n")).await;
        let answer = peer.answer().await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.header("x-request-id"), Some("r-1"), "{path}");
        let traceparent = answer.header("traceparent").unwrap();
        assert!(traceparent.contains(trace_id) && !traceparent.contains("00f067aa0ba902b7"));
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("strict-transport-security"), None, "{path}");
        if status == 200 {
            let own = peer.0.local_addr().unwrap();
            assert_eq!(answer.body, format!("r-1 {trace_id} {own}"));
        }
    }
    server.stops().await;
}
