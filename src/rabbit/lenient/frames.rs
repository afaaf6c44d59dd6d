//! Follows the frames in what the broker sends.
//!
//! Owns: where a frame begins and ends, and which ones are looked into.
//! Never: keeps bytes. Who reads them keeps the beginning of a frame that is not complete.

use super::fields;

/// A method or header above it passes as it is. Brokers agree on 128 KiB unless told otherwise.
const HELD_BYTES_MAX: usize = 1024 * 1024;
/// Type, channel and size of a frame.
const HEAD_BYTES: usize = 7;
/// What a frame has besides its payload: its head and its end.
const AROUND_BYTES: usize = HEAD_BYTES + 1;
const END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const CONNECTION_TUNE: [u8; 4] = [0, 10, 0, 30];

/// Where in the stream of frames the last byte was.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes that pass unseen: the rest of a body, or all when this is no stream of frames.
    passing: usize,
    /// The larger frame is an error to the client library.
    frame_bytes_max: usize,
}

/// What is to be done with some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// The first so many go on as they are.
    pub pass: usize,
    /// What comes behind them.
    pub then: Then,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The beginning of a frame, or nothing: to be shown again when there is more of it.
    More,
    /// A frame of this length, in place of which another one goes on.
    Instead(Vec<u8>, usize),
}

enum Frame {
    Begun,
    Pass(usize),
    Instead(Vec<u8>, usize),
}

impl Frames {
    /// `frame_max` is what the client asks for; 0 is no limit of its own.
    pub(super) fn new(frame_max: Option<u32>) -> Self {
        let mut frames = Self { passing: 0, frame_bytes_max: usize::MAX };
        frames.limit(frame_max.unwrap_or(0));
        frames
    }

    /// Looks at the next bytes, up to the first frame that is to be replaced.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut pass = 0;
        let mut rest = bytes;
        while !rest.is_empty() {
            let passing = self.passing.min(rest.len());
            self.passing -= passing;
            pass += passing;
            rest = rest.get(passing..).unwrap_or_default();
            match self.frame(rest) {
                Frame::Begun => break,
                Frame::Pass(len) => self.passing = len,
                Frame::Instead(frame, len) => {
                    return Scan { pass, then: Then::Instead(frame, len) };
                }
            }
        }
        Scan { pass, then: Then::More }
    }

    fn frame(&mut self, bytes: &[u8]) -> Frame {
        match bytes.first() {
            None => return Frame::Begun,
            Some(&(METHOD | HEADER | BODY | HEARTBEAT)) => {}
            Some(_) => return Frame::Pass(usize::MAX),
        }
        let Some((&[kind, _, _, size @ ..], _)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Frame::Begun;
        };
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        let len = size.saturating_add(AROUND_BYTES);
        if matches!(kind, BODY | HEARTBEAT) || len > HELD_BYTES_MAX {
            return Frame::Pass(len);
        }
        let Some(frame) = bytes.get(..len) else {
            return Frame::Begun;
        };
        let (Some(payload), Some(&END)) = (frame.get(HEAD_BYTES..len - 1), frame.last()) else {
            return Frame::Pass(usize::MAX);
        };
        let instead = if kind == HEADER {
            fields::header(payload, self.frame_bytes_max.saturating_sub(AROUND_BYTES))
        } else {
            self.learn(payload);
            fields::method(payload)
        };
        match instead {
            None => Frame::Pass(len),
            Some(payload) => Frame::Instead(reframed(frame, &payload), len),
        }
    }

    /// Takes note of the broker's own limit; the client library goes by the lower one.
    fn learn(&mut self, method: &[u8]) {
        if let Some([_, _, frame_max @ .., _, _]) =
            method.strip_prefix(&CONNECTION_TUNE).and_then(|arguments| arguments.first_chunk::<8>())
        {
            self.limit(u32::from_be_bytes(*frame_max));
        }
    }

    fn limit(&mut self, frame_max: u32) {
        if let Ok(frame_max @ 1..) = usize::try_from(frame_max) {
            self.frame_bytes_max = self.frame_bytes_max.min(frame_max);
        }
    }
}

/// `payload` in a frame of the same type and channel.
fn reframed(frame: &[u8], payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a frame that is held has less than 4 GiB");
    let kind_and_channel = frame.get(..3).unwrap_or_default();
    [kind_and_channel, &size.to_be_bytes(), payload, &[END]].concat()
}
