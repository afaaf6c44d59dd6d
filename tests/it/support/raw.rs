//! A sender that takes nothing for granted: publishes bytes that no client library would.

use std::collections::BTreeSet;

use lapin::uri::AMQPUri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// A connection with one open channel that confirms.
pub(crate) struct RawSender {
    stream: TcpStream,
    published: u64,
}

impl RawSender {
    pub(crate) async fn connect(url: &str) -> Self {
        let uri: AMQPUri = url.parse().unwrap();
        let user = &uri.authority.userinfo;
        let address = (uri.authority.host.as_str(), uri.authority.port);
        let stream = TcpStream::connect(address).await.unwrap();
        let mut sender = Self { stream, published: 0 };
        sender.stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        sender.expect([0, 10, 0, 10]).await;
        let login = format!("\0{}\0{}", user.username, user.password);
        let start = [sized(b""), short(b"PLAIN"), sized(login.as_bytes()), short(b"en_US")];
        sender.method(0, [0, 10, 0, 11], &start.concat()).await;
        let tune = sender.expect([0, 10, 0, 30]).await;
        sender.method(0, [0, 10, 0, 31], &[&tune[..6], &[0, 0]].concat()).await;
        let open = [short(uri.vhost.as_bytes()), vec![0, 0]].concat();
        sender.method(0, [0, 10, 0, 40], &open).await;
        sender.expect([0, 10, 0, 41]).await;
        sender.method(1, [0, 20, 0, 10], &[0]).await;
        sender.expect([0, 20, 0, 11]).await;
        sender.method(1, [0, 85, 0, 10], &[0]).await;
        sender.expect([0, 85, 0, 11]).await;
        sender
    }

    /// `properties` begins with the flags.
    pub(crate) async fn publish(
        &mut self,
        exchange: &str,
        key: &[u8],
        properties: &[u8],
        body: &[u8],
    ) {
        let publish = [vec![0, 0], short(exchange.as_bytes()), short(key), vec![0]].concat();
        self.method(1, [0, 60, 0, 40], &publish).await;
        let size = (body.len() as u64).to_be_bytes();
        self.frame(HEADER, 1, &[&[0, 60, 0, 0], &size[..], properties].concat()).await;
        self.frame(BODY, 1, body).await;
        self.published += 1;
    }

    /// Everything before has been taken by the broker when this returns.
    pub(crate) async fn close(mut self) {
        let mut confirmed = BTreeSet::new();
        while confirmed.len() as u64 != self.published {
            let ack = self.expect([0, 60, 0, 80]).await;
            let tag = u64::from_be_bytes(ack[..8].try_into().unwrap());
            confirmed.extend(if ack[8] == 1 { 1..=tag } else { tag..=tag });
        }
        self.method(1, [0, 20, 0, 40], &[0; 7]).await;
        self.expect([0, 20, 0, 41]).await;
    }

    async fn method(&mut self, channel: u8, id: [u8; 4], arguments: &[u8]) {
        self.frame(METHOD, channel, &[&id, arguments].concat()).await;
    }

    async fn frame(&mut self, kind: u8, channel: u8, payload: &[u8]) {
        let frame = [&[kind, 0, channel], &sized(payload)[..], &[0xCE]].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The arguments of the next method, which must be `id`.
    async fn expect(&mut self, id: [u8; 4]) -> Vec<u8> {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
        let mut payload = vec![0; size + 1];
        self.stream.read_exact(&mut payload).await.unwrap();
        assert_eq!(payload[..4], id, "{}", String::from_utf8_lossy(&payload));
        payload[4..size].to_vec()
    }
}

/// A short string.
pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// A long string, a table or an array.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
