//! A stream between socket and client library.
//!
//! Owns: bytes that have come and cannot go on yet.
//! Never: copies what goes on as it is, except the beginning of a frame that comes in two reads.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::frames::{Frames, Scan, Then};

/// Room that is read into when the reader has none behind the beginning of a frame.
const ROOM_BYTES: usize = 8 * 1024;

/// Passes on what comes from `S`, but for frames that the client library cannot read.
#[derive(Debug)]
pub(super) struct Lenient<S> {
    inner: S,
    frames: Frames,
    /// The beginning of one frame that is not complete.
    begun: Vec<u8>,
    /// What goes on before anything else.
    ready: VecDeque<u8>,
}

/// What a read has brought.
struct Brought {
    /// So many bytes stand in the reader's buffer.
    len: usize,
    /// There will be no more.
    ended: bool,
}

impl<S: AsyncRead + Unpin> Lenient<S> {
    /// `frame_max` is what the client asks for.
    pub(super) fn new(inner: S, frame_max: Option<u32>) -> Self {
        let frames = Frames::new(frame_max);
        Self { inner, frames, begun: Vec::new(), ready: VecDeque::new() }
    }

    /// Reads into `buf`, behind the frame that has begun.
    fn read_in_place(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Brought>> {
        let Some((front, room)) = buf.split_at_mut_checked(self.begun.len()) else {
            return Poll::Ready(Ok(Brought { len: 0, ended: false }));
        };
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, room))?;
        if read == 0 {
            return Poll::Ready(Ok(self.ended()));
        }
        front.copy_from_slice(&self.begun);
        let bytes = buf.get(..self.begun.len() + read).unwrap_or_default();
        self.begun.clear();
        let Scan { pass, then } = self.frames.scan(bytes);
        let rest = bytes.get(pass..).unwrap_or_default();
        match then {
            Then::More => self.begun.extend_from_slice(rest),
            Then::Instead(frame, len) => {
                self.ready.extend(frame);
                self.put_aside(rest.get(len..).unwrap_or_default());
            }
        }
        Poll::Ready(Ok(Brought { len: pass, ended: false }))
    }

    /// Reads elsewhere: the reader has less room than what has come of a frame.
    fn read_aside(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Brought>> {
        let mut bytes = [0; ROOM_BYTES];
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, &mut bytes))?;
        if read == 0 {
            return Poll::Ready(Ok(self.ended()));
        }
        let mut begun = std::mem::take(&mut self.begun);
        begun.extend_from_slice(bytes.get(..read).unwrap_or_default());
        self.put_aside(&begun);
        Poll::Ready(Ok(Brought { len: 0, ended: false }))
    }

    fn put_aside(&mut self, mut bytes: &[u8]) {
        loop {
            let Scan { pass, then } = self.frames.scan(bytes);
            let (passed, rest) = bytes.split_at_checked(pass).unwrap_or((bytes, &[]));
            self.ready.extend(passed);
            match then {
                Then::More => return self.begun.extend_from_slice(rest),
                Then::Instead(frame, len) => {
                    self.ready.extend(frame);
                    bytes = rest.get(len..).unwrap_or_default();
                }
            }
        }
    }

    /// The broker is gone in the middle of a frame, or not: that is for the client to see.
    fn ended(&mut self) -> Brought {
        let begun = std::mem::take(&mut self.begun);
        self.ready.extend(begun);
        Brought { len: 0, ended: true }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                return Poll::Ready(this.ready.read(buf));
            }
            let brought = if this.begun.len() < buf.len() {
                ready!(this.read_in_place(cx, buf))?
            } else if buf.is_empty() {
                return Poll::Ready(Ok(0));
            } else {
                ready!(this.read_aside(cx))?
            };
            // Nothing would mean the end to the client, so it has to wait for a whole frame.
            if brought.len > 0 || (brought.ended && this.ready.is_empty()) {
                return Poll::Ready(Ok(brought.len));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}
