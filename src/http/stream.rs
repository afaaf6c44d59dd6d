//! A connection's bytes, with the bounds that hyper does not have.
//!
//! Owns: how long a head may take once it has begun, how long a peer may take nothing of an
//! answer, and that an answer given before the end of the body reaches its reader.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long the rest of a body that nobody wants is thrown away. Closed sooner, the peer's
/// system would drop the answer with the connection; nobody well-behaved goes on for longer.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// What is thrown away at once.
const LINGER_BYTES: usize = 8 << 10;

/// What the connection's service knows of its request.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Heads that came to their end.
    pub heads: AtomicUsize,
    /// From the end of a head to the end of its answer.
    pub in_hand: AtomicBool,
    /// The answer did not wait for the end of the body.
    pub unread: AtomicBool,
}

/// Longest waits for the peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub head_max: Duration,
    pub taking_max: Duration,
}

/// A stream that loses patience.
pub(super) struct Stream<S> {
    inner: S,
    marks: Arc<Marks>,
    patience: Patience,
    heads: usize,
    head: Deadline,
    taking: Deadline,
    linger: Deadline,
}

impl<S> Stream<S> {
    /// The first head must begin at once: its time runs.
    pub(super) fn new(inner: S, marks: Arc<Marks>, patience: Patience) -> Self {
        let mut head = Deadline::default();
        head.start(patience.head_max);
        let (taking, linger) = (Deadline::default(), Deadline::default());
        Self { inner, marks, patience, heads: 0, head, taking, linger }
    }

    /// What a wait of the writing side comes to.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.taking.stop();
            return polled;
        }
        self.taking.start(self.patience.taking_max);
        self.taking.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let heads = this.marks.heads.load(Ordering::Relaxed);
        if heads != this.heads {
            this.heads = heads;
            this.head.stop();
        }
        if this.marks.in_hand.load(Ordering::Relaxed) {
            return polled;
        }
        if polled.is_ready() {
            this.head.start(this.patience.head_max);
            return polled;
        }
        this.head.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.bounded(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, parts);
        this.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_flush(cx);
        this.bounded(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.linger.runs() {
            let polled = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.bounded(cx, polled))?;
            if !this.marks.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            this.linger.start(LINGER_MAX);
        }
        let mut bytes = [0; LINGER_BYTES];
        while this.linger.poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A moment that may come; its timer is made only for somebody who waits.
#[derive(Default)]
struct Deadline {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Starts, unless it runs.
    fn start(&mut self, after: Duration) {
        self.due.get_or_insert_with(|| Instant::now() + after);
    }

    fn stop(&mut self) {
        self.due = None;
    }

    fn runs(&self) -> bool {
        self.due.is_some()
    }

    /// Ready when it has passed; never, if it does not run.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Patience =
        Patience { head_max: Duration::from_secs(10), taking_max: Duration::from_secs(5) };

    fn pair() -> (Stream<DuplexStream>, DuplexStream, Arc<Marks>) {
        let (ours, theirs) = duplex(64);
        let marks = Arc::new(Marks::default());
        (Stream::new(ours, Arc::clone(&marks), PATIENCE), theirs, marks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_and_a_body_has_none() {
        let (mut stream, mut peer, _) = pair();
        let mut bytes = [0; 64];
        let started = Instant::now();
        let trickle = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                if peer.write_all(b"x").await.is_err() {
                    return;
                }
            }
        };
        let head = async {
            loop {
                if let Err(error) = stream.read(&mut bytes).await {
                    return error.kind();
                }
            }
        };
        let kind = tokio::select! { kind = head => kind, () = trickle => unreachable!() };
        assert_eq!((kind, started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));

        let (mut stream, mut peer, marks) = pair();
        for in_hand in [true, false] {
            peer.write_all(b"x").await.unwrap();
            stream.read_exact(&mut bytes[..1]).await.unwrap();
            marks.heads.fetch_add(1, Ordering::Relaxed);
            marks.in_hand.store(in_hand, Ordering::Relaxed);
            let waited = timeout(Duration::from_hours(1), stream.read(&mut bytes)).await;
            assert!(waited.is_err(), "others bound a body and the pause between two requests");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (mut stream, mut peer, _) = pair();
        let started = Instant::now();
        let error = stream.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));

        let mut bytes = [0; 64];
        peer.read_exact(&mut bytes).await.unwrap();
        let (mut stream, mut peer, _) = pair();
        let slowly = async {
            for _ in 0..20 {
                sleep(Duration::from_secs(4)).await;
                peer.read_exact(&mut bytes).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[0; 20 * 64]), slowly);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_an_unread_body_is_thrown_away_for_a_while() {
        for (unread, pieces, seconds) in [(false, 9, 0), (true, 1, 0), (true, 9, 2)] {
            let (mut stream, mut peer, marks) = pair();
            marks.unread.store(unread, Ordering::Relaxed);
            let started = Instant::now();
            let sends = async move {
                for _ in 0..pieces {
                    peer.write_all(&[0; 64]).await.unwrap();
                    if pieces > 1 {
                        sleep(Duration::from_secs(1)).await;
                    }
                }
            };
            let closes = async {
                stream.shutdown().await.unwrap();
                let took = started.elapsed().as_secs();
                // The peer goes on into a stream that is still there.
                sleep(Duration::from_mins(1)).await;
                took
            };
            let mut drained = Vec::new();
            let (took, ()) = tokio::join!(closes, async {
                drop(timeout(Duration::from_secs(20), sends).await);
            });
            assert_eq!(took, seconds, "{unread}, {pieces}");
            drop(timeout(Duration::from_secs(20), stream.read_to_end(&mut drained)).await);
        }
    }
}
