//! Takes connections, as many as may be, until it is told to stop.
//!
//! Owns: every connection's task. When told, it takes no more, lets idle ones go, and ends when
//! the requests in hand are answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::settings::Http;

use super::answers::with_answers;
use super::connection::Serving;
use super::stream::Patience;
use super::tls::Tls;

/// What the system holds of an answer for each connection; Linux doubles it. It tells of progress
/// only when a third is free again, and by itself it would hold megabytes: then a slow but steady
/// reader would look like one who takes nothing.
const SEND_BUFFER_BYTES: u32 = 64 << 10;
/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;
/// How often the certificate's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After a failure that the next connection would meet too, as when there are no more files.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a trouble is told of while it lasts.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Takes the port, so that a taken one is an error before anything else starts.
pub async fn bind(listen: &str) -> anyhow::Result<TcpListener> {
    let listener = take(listen).await;
    let listener = listener.with_context(|| format!("listen on http.listen {listen}"))?;
    info!(address = %listener.local_addr()?, "Listening");
    Ok(listener)
}

/// The first address of `listen` that can be taken. Its connections inherit the buffer.
async fn take(listen: &str) -> io::Result<TcpListener> {
    let mut failed = None;
    for address in lookup_host(listen).await? {
        match take_one(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

fn take_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `router` until `stop`, and then what is in hand.
///
/// The certificate is read here, so that a wrong one is an error before anything else starts;
/// the rest happens in the future, which owns all it needs.
pub fn serve(
    listener: TcpListener,
    router: Router,
    settings: &Http,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    let tls = Tls::load(settings)?;
    let head_max = Duration::from_millis(settings.header_timeout_ms.get().into());
    let taking_max = Duration::from_millis(settings.body_timeout_ms.get().into());
    let crowded = Arc::new(AtomicBool::new(false));
    let serving = Serving {
        router: with_answers(router, tls.is_some()),
        patience: Patience { head_max, taking_max },
        crowded: Arc::clone(&crowded),
    };
    let places = Arc::new(Semaphore::new(settings.connections_max.get()));
    let entrance = Entrance { listener, places, crowded, told_at: None };
    Ok(run(entrance, tls, serving, stop))
}

async fn run(
    mut entrance: Entrance,
    mut tls: Option<Tls>,
    serving: Serving,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => tell_panic(ended),
            _ = look.tick() => if let Some(tls) = &mut tls { tls.look().await },
            (stream, peer, place) = entrance.accept() => {
                let (serving, watcher) = (serving.clone(), graceful.watcher());
                let acceptor = tls.as_ref().map(Tls::acceptor);
                let stop = stop.clone();
                connections.spawn(async move {
                    let _place = place;
                    let Some(acceptor) = acceptor else {
                        return serving.run(stream, peer, watcher).await;
                    };
                    let handshake = timeout(serving.patience.head_max, acceptor.accept(stream));
                    tokio::select! {
                        () = stop.cancelled() => {}
                        shaken = handshake => match shaken {
                            Ok(Ok(stream)) => serving.run(stream, peer, watcher).await,
                            Ok(Err(error)) => debug!(%error, "A peer did not agree on TLS"),
                            Err(_elapsed) => debug!("A peer did not agree on TLS in time"),
                        }
                    }
                });
            }
        }
    }
    drop(entrance);
    let ends = async {
        while let Some(ended) = connections.join_next().await {
            tell_panic(ended);
        }
    };
    tokio::join!(graceful.shutdown(), ends);
    Ok(())
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(panic) = ended {
        error!(error = %panic, "A connection's task panicked; the others go on");
    }
}

/// Where connections come in.
struct Entrance {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// Every place is taken. The semaphore cannot tell: whoever waits for a connection holds one.
    crowded: Arc<AtomicBool>,
    told_at: Option<Instant>,
}

impl Entrance {
    /// The next connection, once there is a place for it. Nothing is lost if it is not waited for.
    async fn accept(&mut self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        if self.places.available_permits() == 0 {
            self.crowded.store(true, Ordering::Relaxed);
            self.tell("http.connections_max connections are open; more wait");
        }
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        self.crowded.store(false, Ordering::Relaxed);
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Answers are written whole; waiting for more would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%error, "A connection ended before it began");
                        continue;
                    }
                    return (stream, peer, place);
                }
                // The peer's trouble, not ours.
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    self.tell(&format!("failed to accept connections: {error}"));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn tell(&mut self, trouble: &str) {
        if self.told_at.is_none_or(|at| at.elapsed() > TELL_EVERY) {
            self.told_at = Some(Instant::now());
            warn!("{trouble}");
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
