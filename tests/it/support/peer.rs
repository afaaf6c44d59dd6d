//! Somebody at the other end of a connection, who may be slow, rude, or gone.

use std::fmt::Debug;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wait;

/// A connection over which HTTP is spoken by hand.
pub(crate) struct Peer<S>(pub S);

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .into_iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl Peer<TcpStream> {
    pub(crate) async fn connect(port: u16) -> Self {
        Self(TcpStream::connect(("127.0.0.1", port)).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Sends `GET path` and reads the answer; the connection stays.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        self.answer().await
    }

    /// Reads one answer that announces its length.
    pub(crate) async fn answer(&mut self) -> Answer {
        let read = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.expect("an answer"));
            }
            let head = String::from_utf8(head).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let mut answer = Answer { status, head, body: String::new() };
            let length = answer.header("content-length").unwrap_or("0").parse().unwrap();
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            answer.body = String::from_utf8(body).unwrap();
            answer
        };
        timeout(wait::SOON, read).await.expect("an answer in time")
    }

    /// Waits for the other side to close; what it has said until then.
    pub(crate) async fn closed(&mut self) -> String {
        let mut said = Vec::new();
        let read = timeout(wait::SOON, self.0.read_to_end(&mut said)).await;
        // Whether it ends or breaks, it is over.
        drop(read.expect("the connection is closed in time"));
        String::from_utf8(said).unwrap()
    }
}
