//! Reads the body of one request, no more than may be and no longer than may be.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::{Instant, timeout_at};

/// So many bytes count as the end of a pause: somebody who sends a byte a second only pretends.
const STEP_BYTES: usize = 1024;

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than may be: `413`.
    #[error("the body is too large")]
    TooLarge,
    /// Nothing came for too long: `408`.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// It ended early or was cut into wrong pieces: `400`, if anybody still listens.
    #[error("the body broke off")]
    Broken,
}

/// The whole body, at most `bytes_max` long.
///
/// Every `pause_max` must bring a KiB or the rest.
pub async fn read_body(
    mut body: Body,
    bytes_max: usize,
    pause_max: Duration,
) -> Result<Bytes, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(BodyError::TooLarge);
    }
    let mut due = Instant::now() + pause_max;
    let mut since_due = 0;
    let mut read = Vec::new();
    let mut first = Bytes::new();
    loop {
        let Ok(frame) = timeout_at(due, body.frame()).await else { return Err(BodyError::TooSlow) };
        let Some(frame) = frame else { break };
        let Ok(frame) = frame else { return Err(BodyError::Broken) };
        // Trailers say nothing to us.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bytes_max - first.len() - read.len() {
            return Err(BodyError::TooLarge);
        }
        since_due += data.len();
        if since_due >= STEP_BYTES {
            since_due = 0;
            due = Instant::now() + pause_max;
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && read.is_empty() {
            first = data;
            continue;
        }
        if read.is_empty() {
            read.reserve(announced.max(first.len() + data.len()));
            read.extend_from_slice(&std::mem::take(&mut first));
        }
        read.extend_from_slice(&data);
    }
    Ok(if read.is_empty() { first } else { read.into() })
}

/// A body of any length, piece by piece, under the same rule.
///
/// Only the time counts in which somebody waits for a piece: whoever lets the sender wait cannot
/// blame them.
pub struct Pieces {
    body: Body,
    pause_max: Duration,
    /// How long may be waited for the next KiB.
    left: Duration,
    since_due: usize,
}

impl Pieces {
    /// Nothing is read yet.
    pub const fn new(body: Body, pause_max: Duration) -> Self {
        Self { body, pause_max, left: pause_max, since_due: 0 }
    }

    /// The next piece, `None` at the end. Giving up the wait loses no bytes, and no time either.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let due = Instant::now() + self.left;
            let frame = {
                let waited = Waited { left: &mut self.left, since: Instant::now() };
                let frame = timeout_at(due, self.body.frame()).await;
                drop(waited);
                frame
            };
            let Ok(frame) = frame else { return Err(BodyError::TooSlow) };
            let Some(frame) = frame else { return Ok(None) };
            let Ok(frame) = frame else { return Err(BodyError::Broken) };
            // Trailers say nothing to us.
            let Ok(data) = frame.into_data() else { continue };
            self.since_due += data.len();
            if self.since_due >= STEP_BYTES {
                self.since_due = 0;
                self.left = self.pause_max;
            }
            return Ok(Some(data));
        }
    }
}

/// Counts a wait, also one that was given up.
struct Waited<'a> {
    left: &'a mut Duration,
    since: Instant,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        *self.left = self.left.saturating_sub(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{StreamExt, stream};
    use tokio::time::sleep;

    use super::*;

    const PAUSE_MAX: Duration = Duration::from_secs(10);

    /// Pieces, each so many seconds after the one before.
    fn body(pieces: &[(u64, usize)]) -> Body {
        let pieces = pieces.to_vec();
        Body::from_stream(stream::iter(pieces).then(|(pause_s, bytes)| async move {
            sleep(Duration::from_secs(pause_s)).await;
            Ok::<_, io::Error>(vec![b'x'; bytes])
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_if_it_is_short_and_quick_enough() {
        let table: [(&[(u64, usize)], usize, Result<usize, BodyError>); 11] = [
            (&[], 0, Ok(0)),
            (&[(0, 0), (0, 5)], 5, Ok(5)),
            (&[(0, 5)], 5, Ok(5)),
            (&[(0, 6)], 5, Err(BodyError::TooLarge)),
            (&[(0, 3), (0, 3)], 6, Ok(6)),
            (&[(0, 3), (0, 3)], 5, Err(BodyError::TooLarge)),
            (&[(0, 3), (0, 3), (0, 1)], 6, Err(BodyError::TooLarge)),
            (&[(9, 3)], 5, Ok(3)),
            (&[(11, 3)], 5, Err(BodyError::TooSlow)),
            (&[(9, 1024), (9, 1024), (9, 1)], 9999, Ok(2049)),
            (&[(4, 1), (4, 1), (4, 1)], 9999, Err(BodyError::TooSlow)),
        ];
        for (pieces, bytes_max, expected) in table {
            let read = read_body(body(pieces), bytes_max, PAUSE_MAX).await;
            assert_eq!(read.map(|bytes| bytes.len()), expected, "{pieces:?}, {bytes_max}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_come_at_a_least_rate_while_they_are_waited_for() {
        let table: [(&[(u64, usize)], usize, Result<(), BodyError>); 5] = [
            (&[(0, 5), (9, 5)], 10, Ok(())),
            (&[(4, 1), (4, 1), (4, 1)], 2, Err(BodyError::TooSlow)),
            (&[(9, 1024), (9, 1024), (9, 1)], 2049, Ok(())),
            (&[(11, 2000)], 0, Err(BodyError::TooSlow)),
            (&[(9, 1), (2, 2000)], 1, Err(BodyError::TooSlow)),
        ];
        for (sent, expected, end) in table {
            let mut pieces = Pieces::new(body(sent), PAUSE_MAX);
            let mut bytes = 0;
            let ended = loop {
                // Whoever looks up all the time waits no less for that.
                let Ok(piece) = timeout_at(Instant::now() + PAUSE_MAX / 7, pieces.next()).await
                else {
                    continue;
                };
                match piece {
                    Ok(Some(piece)) => bytes += piece.len(),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
                sleep(PAUSE_MAX * 10).await;
            };
            assert_eq!((bytes, ended), (expected, end), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_announces_its_length_or_breaks_is_refused_at_once() {
        let read = read_body(Body::from(vec![0; 6]), 5, PAUSE_MAX).await;
        assert_eq!(read, Err(BodyError::TooLarge));
        let broken = stream::iter([Ok(vec![b'x']), Err(io::Error::other("gone"))]);
        let read = read_body(Body::from_stream(broken), 5, PAUSE_MAX).await;
        assert_eq!(read, Err(BodyError::Broken));
    }
}
