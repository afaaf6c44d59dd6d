//! Connects so that no message can break the connection it comes on.
//!
//! The client library fails a whole connection over one delivery that it cannot read: a routing
//! key, property or header name that is not UTF-8, a header frame above `frame_max`, headers so
//! deep that its parser overflows its stack. The message comes again to whoever connects next, so
//! one bad sender would stop everybody. The broker lets all of these through.
//!
//! Owns: the runtime under the client library, whose sockets rewrite such frames.
//! Never: rejects anything. What was rewritten is there to be rejected as any other delivery.

mod fields;
mod frames;
mod stream;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::tcp::{AMQPUriTcpExt, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, ConnectionProperties};

use stream::Lenient;

/// A socket as the client library makes it, plain or TLS.
type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;
type Kit = RuntimeParts<Tokio, Sockets>;

/// Connects as `lapin::Connection::connect_uri` does, but reads leniently, and by a TLS of our own.
pub(super) async fn connect(
    uri: AMQPUri,
    tls: Option<RustlsConnector>,
    properties: ConnectionProperties,
) -> lapin::Result<lapin::Connection> {
    let sockets = Runtime::tokio_current();
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), Sockets(Tokio::current())));
    let connect = async move |uri: AMQPUri, _: Runtime<Kit>| {
        // TLS is done in here, beneath the filter, which must see AMQP in plain bytes.
        let socket = socket(&uri, tls.as_ref(), &sockets).await?;
        Ok(AsyncTcpStream::Plain(Lenient::new(socket, uri.query.frame_max)))
    };
    lapin::Connection::connector(uri, runtime, connect, properties).await
}

async fn socket(
    uri: &AMQPUri,
    tls: Option<&RustlsConnector>,
    sockets: &Runtime<Tokio>,
) -> io::Result<Socket> {
    let bare = AMQPUri { scheme: AMQPScheme::AMQP, ..uri.clone() };
    let socket = bare.connect_async(sockets).await?;
    match tls {
        None => Ok(socket),
        Some(tls) => socket.into_rustls(tls, &uri.authority.host).await,
    }
}

/// Opens TLS, says nothing, and waits for what the other side says to that; a broker that takes our
/// certificate is silent too.
///
/// In TLS 1.3 a certificate is refused after our part of the handshake. Whoever writes right away
/// may see no more of the refusal than a connection that is gone.
pub(super) async fn shake_hands(uri: &AMQPUri, tls: &RustlsConnector) -> io::Result<()> {
    let mut socket = socket(uri, Some(tls), &Runtime::tokio_current()).await?;
    let mut byte = [0];
    poll_fn(|cx| Pin::new(&mut socket).poll_read(cx, &mut byte)).await.map(drop)
}

/// Tokio's reactor, but for the type of its streams: the client library asks the runtime for it.
#[derive(Debug, Clone)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Lenient<Socket>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// The trait's bound on `socket` has no public name, so that it cannot be handed on. Nobody
    /// does this to a TCP connection.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Lenient<Socket>, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, dur: Duration) -> Self::Sleep {
        self.0.sleep(dur)
    }

    fn interval(&self, dur: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(dur)
    }

    fn tcp_connect_addr(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(addr);
        async move { Ok(Lenient::new(AsyncTcpStream::Plain(connecting.await?), None)) }
    }
}
