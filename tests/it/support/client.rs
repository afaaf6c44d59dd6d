//! An HTTP client as callers have one: keeps its connection, and can be cut off at any moment.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub method: String,
    /// As it stands on the wire.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str) -> Request {
    let (method, path) = (method.to_owned(), path.to_owned());
    Request { method, path, headers: HeaderMap::new(), body: Bytes::new() }
}

impl Request {
    /// The same with one header more.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.header_bytes(name, value.as_bytes())
    }

    /// The same, where the value is no text.
    pub(crate) fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        self
    }

    /// The same with a write id.
    pub(crate) fn id(self, write_id: &str) -> Self {
        self.header("idempotency-key", &format!("\"{write_id}\""))
    }

    /// The same with a body, and without a word about what it is.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into().into();
        self
    }

    fn head(&self) -> hyper::http::request::Builder {
        let mut head = hyper::Request::builder().method(self.method.as_str()).uri(&self.path);
        head.headers_mut().unwrap().clone_from(&self.headers);
        head.header("host", "localhost")
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its status and no other.
    pub(crate) fn was(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// One connection at a time to a port of this machine.
pub(crate) struct Client {
    port: u16,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Body>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(crate) const fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    /// Asks, and must be answered.
    pub(crate) async fn send(&mut self, request: Request) -> Answer {
        let shown = format!("{} {}", request.method, request.path);
        self.try_send(request).await.unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    /// Asks where there may be nobody, or nobody who answers to the end.
    pub(crate) async fn try_send(&mut self, request: Request) -> Result<Answer, String> {
        let body = UnsyncBoxBody::new(Full::new(request.body.clone()));
        let asked = self.exchange(&request, body);
        let answered = timeout(ANSWER_MAX, asked).await;
        let answered = answered.unwrap_or_else(|_| panic!("no answer within {ANSWER_MAX:?}"));
        if answered.is_err() {
            self.connection = None;
        }
        answered
    }

    /// Sends a body in chunks, each as soon as `chunks` gives it; the answer comes as it is made.
    pub(crate) async fn stream(
        &mut self,
        request: &Request,
        chunks: impl Stream<Item = Bytes> + Send + 'static,
    ) -> hyper::Response<Incoming> {
        let frames = chunks.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        let body = UnsyncBoxBody::new(StreamBody::new(frames));
        timeout(ANSWER_MAX, self.begin(request, body)).await.expect("a head in time").unwrap()
    }

    /// Cuts the connection, whatever is on its way.
    pub(crate) fn cut(&mut self) {
        self.connection = None;
    }

    async fn exchange(&mut self, request: &Request, body: Body) -> Result<Answer, String> {
        let (head, body) = self.begin(request, body).await?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    async fn begin(
        &mut self,
        request: &Request,
        body: Body,
    ) -> Result<hyper::Response<Incoming>, String> {
        let request = request.head().body(body).unwrap();
        let sender = self.sender().await?;
        sender.send_request(request).await.map_err(|error| error.to_string())
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Body>, String> {
        let usable = match &mut self.connection {
            Some(connection) => connection.sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await;
            let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
            let opened = handshake(stream).await.map_err(|error| error.to_string())?;
            let (sender, connection) = opened;
            let driver = tokio::spawn(async move { drop(connection.await) });
            self.connection = Some(Connection { sender, driver });
        }
        Ok(&mut self.connection.as_mut().unwrap().sender)
    }
}
