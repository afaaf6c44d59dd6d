//! Looks at a broker without changing what it holds.
//!
//! Owns: the questions that `doctor` asks over AMQP.
//! Never: declares anything that stays, or repairs.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::{Connection, short, within};
use super::error::BrokerError;

/// Where a broker is, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub user: String,
    pub vhost: String,
}

impl Address {
    /// Reads `amqp.url`, as the client library does; the password stays where it is.
    pub fn parse(url: &SecretString) -> Option<Self> {
        let uri: AMQPUri = url.expose_secret().parse().ok()?;
        Some(Self {
            host: uri.authority.host,
            port: uri.authority.port,
            tls: uri.scheme == AMQPScheme::AMQPS,
            user: uri.authority.userinfo.username,
            vhost: uri.vhost,
        })
    }
}

/// What a broker says about itself before anybody has logged in: `version`, `product`,
/// `cluster_name`. The client library keeps that to itself.
///
/// `None` over TLS: that would need a handshake of its own.
pub async fn server_properties(
    address: &Address,
    answer_max: Duration,
) -> Option<BTreeMap<String, String>> {
    if address.tls {
        return None;
    }
    timeout(answer_max, greet(address)).await.ok()?.ok()
}

async fn greet(address: &Address) -> io::Result<BTreeMap<String, String>> {
    /// More than any broker says; a stranger on that port cannot fill the memory.
    const FRAME_BYTES_MAX: u32 = 64 << 10;
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let _type = stream.read_u8().await?;
    let _channel = stream.read_u16().await?;
    let length = stream.read_u32().await?;
    let mut frame = Vec::new();
    stream.take(length.min(FRAME_BYTES_MAX).into()).read_to_end(&mut frame).await?;
    start_properties(&frame).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The texts in the table of a `connection.start` method.
fn start_properties(frame: &[u8]) -> Option<BTreeMap<String, String>> {
    /// Class and method number, major and minor version of the protocol.
    const BEFORE_TABLE: usize = 6;
    if !frame.starts_with(&[0, 10, 0, 10]) {
        return None;
    }
    let mut rest = frame.get(BEFORE_TABLE..)?;
    let mut table = long(&mut rest)?;
    let mut properties = BTreeMap::new();
    while !table.is_empty() {
        let length = usize::from(*take(&mut table, 1)?.first()?);
        let name = String::from_utf8_lossy(take(&mut table, length)?).into_owned();
        match take(&mut table, 1)?.first()? {
            b'S' => {
                let text = String::from_utf8_lossy(long(&mut table)?).into_owned();
                properties.insert(name, text);
            }
            b'F' => drop(long(&mut table)?),
            b't' => drop(take(&mut table, 1)?),
            _ => return Some(properties),
        }
    }
    Some(properties)
}

fn take<'bytes>(bytes: &mut &'bytes [u8], length: usize) -> Option<&'bytes [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn long<'bytes>(bytes: &mut &'bytes [u8]) -> Option<&'bytes [u8]> {
    let length = u32::from_be_bytes(take(bytes, 4)?.try_into().ok()?);
    take(bytes, usize::try_from(length).ok()?)
}

/// Whether rings can be made: declares one that nobody uses, and deletes it.
///
/// A broker without the plugin closes the connection, so this wants one of its own.
pub async fn make_ring(connection: &Connection, name: &str) -> Result<(), BrokerError> {
    let channel = connection.channel().await?;
    let name = short("the exchange's name", name)?;
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    let kind = ExchangeKind::Custom("x-consistent-hash".into());
    let declaring = channel.exchange_declare(name.clone(), kind, options, FieldTable::default());
    within(connection.answer_max(), declaring).await?;
    let deleting = channel.exchange_delete(name, ExchangeDeleteOptions::default());
    within(connection.answer_max(), deleting).await
}

/// Whether an exchange is there, whatever its arguments.
pub async fn has_exchange(connection: &Connection, name: &str) -> Result<bool, BrokerError> {
    let channel = connection.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let name = short("the exchange's name", name)?;
    let looking =
        channel.exchange_declare(name, ExchangeKind::Fanout, options, FieldTable::default());
    there(within(connection.answer_max(), looking).await)
}

/// Whether a queue is there, whatever its arguments.
pub async fn has_queue(connection: &Connection, name: &str) -> Result<bool, BrokerError> {
    let channel = connection.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let name = short("the queue's name", name)?;
    let looking = channel.queue_declare(name, options, FieldTable::default());
    there(within(connection.answer_max(), looking).await.map(drop))
}

/// How many messages wait in these queues together; one that is not there holds none.
///
/// About so many: a broker that is slow says 0.
pub async fn ready(connection: &Connection, queues: &[String]) -> Result<u64, BrokerError> {
    let mut channel = connection.channel().await?;
    let mut ready = 0;
    for queue in queues {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = short("the queue's name", queue)?;
        let looking = channel.queue_declare(name, options, FieldTable::default());
        match within(connection.answer_max(), looking).await {
            Ok(there) => ready += u64::from(there.message_count()),
            // The broker has closed the channel.
            Err(BrokerError::Missing { .. }) => channel = connection.channel().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(ready)
}

fn there(looked: Result<(), BrokerError>) -> Result<bool, BrokerError> {
    match looked {
        Ok(()) => Ok(true),
        Err(BrokerError::Missing { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, value: &str) -> Vec<u8> {
        let mut entry = vec![u8::try_from(name.len()).unwrap()];
        entry.extend(name.bytes());
        entry.push(b'S');
        entry.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        entry.extend(value.bytes());
        entry
    }

    #[test]
    fn a_broker_says_its_version_before_the_login() {
        let mut table = vec![12];
        table.extend(b"capabilitiesF\x00\x00\x00\x03\x01at");
        table.extend(text("version", "3.10.8"));
        table.extend(text("product", "RabbitMQ"));
        let mut frame = vec![0, 10, 0, 10, 0, 9];
        frame.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        frame.extend(&table);
        let properties = start_properties(&frame).unwrap();
        assert_eq!(properties.get("version").map(String::as_str), Some("3.10.8"));
        assert_eq!(properties.len(), 2);
        for cut in 0..frame.len() {
            drop(start_properties(&frame[..cut]));
        }
        assert_eq!(start_properties(b"HTTP/1.1 400"), None);
    }

    #[test]
    fn an_address_is_decoded() {
        let url = SecretString::from("amqps://a%40b:p@host/%2Fshop");
        let address = Address::parse(&url).unwrap();
        let expected = Address {
            host: "host".into(),
            port: 5671,
            tls: true,
            user: "a@b".into(),
            vhost: "/shop".into(),
        };
        assert_eq!(address, expected);
    }
}
