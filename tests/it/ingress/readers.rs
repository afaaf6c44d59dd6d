//! Whoever does not read the results of a bulk request holds up nobody but themselves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::bulk::item;
use super::{Stage, add};
use crate::support::wait;

/// What the ingress may need beyond what it had while the reader sleeps.
const MEMORY_KB_MAX: u64 = 30_000;
/// What is taken of a caller who reads nothing: buffers on the way, and the window.
const TAKEN_BYTES_MAX: u64 = 64 << 20;
/// The receive buffer of a caller who reads nothing, and of one who reads slowly.
const RECEIVED_BYTES_MAX: u32 = 4_096;
const SLOWLY_RECEIVED_BYTES_MAX: u32 = 256 << 10;

/// What somebody sends who reads slowly, and how slowly: for longer than the patience of the
/// ingress, but never that long without a byte.
const CHUNKS: usize = 200;
const PACE: Duration = Duration::from_millis(25);

/// A bulk request in chunks, begun.
async fn begun(port: u16, receive_buffer: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(receive_buffer).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    let head = "POST /v1/writes HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Lines whose results are longer than they are, as one chunk: nothing of them is published.
fn chunk() -> Vec<u8> {
    let line = item("frobnicate", &"k".repeat(250), &"i".repeat(200), "{}") + "\n";
    let lines = line.repeat(100);
    format!("{:x}\r\n{lines}\r\n", lines.len()).into_bytes()
}

#[tokio::test]
async fn who_never_reads_is_given_up_and_meanwhile_others_are_answered() {
    let settings = [("http.body_timeout_ms", "2000"), ("http.requests_max", "2")];
    let mut stage = Stage::with(&settings).await;
    stage.send(super::patch("customer/A", "0", "{}")).await.was(201);
    let before = stage.ingress.status_kb("VmHWM");
    let (mut stream, taken) =
        (begun(stage.ingress.port, RECEIVED_BYTES_MAX).await, AtomicU64::new(0));
    let sending = async {
        let chunk = chunk();
        while stream.write_all(&chunk).await.is_ok() {
            taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    };
    tokio::pin!(sending);
    let mut answered = 0;
    let deadline = tokio::time::sleep(wait::SOON);
    tokio::pin!(deadline);
    loop {
        let call = add("customer/A", &format!("other-{answered}"), r#"{"points":1}"#);
        let other = async { stage.client.send(call).await.was(200) };
        tokio::pin!(other);
        tokio::select! {
            biased;
            () = &mut deadline => panic!("a caller who reads nothing is served for ever"),
            () = &mut sending => break,
            _ = &mut other => answered += 1,
        }
    }
    stage.client.cut();
    let (taken, grown) = (taken.load(Ordering::Relaxed), stage.ingress.status_kb("VmHWM") - before);
    eprintln!("{answered} others answered; {taken} bytes taken; {grown} kB more");
    assert!(answered > 20, "others waited: {answered}");
    assert!(taken < TAKEN_BYTES_MAX, "{taken} bytes were taken");
    assert!(grown < MEMORY_KB_MAX, "the ingress took {grown} kB");
    wait::until_equal(wait::SOON, "requests in hand", Some(0.0), async || {
        stage.ingress.metric("keylane_http_requests_in_hand").await
    })
    .await;
}

#[tokio::test]
async fn who_reads_slowly_gets_every_result() {
    let stage = Stage::with(&[("http.body_timeout_ms", "3000")]).await;
    let mut stream = begun(stage.ingress.port, SLOWLY_RECEIVED_BYTES_MAX).await;
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        for _ in 0..CHUNKS {
            writing.write_all(&chunk()).await.unwrap();
        }
        writing.write_all(b"0\r\n\r\n").await.unwrap();
    };
    let reading = async {
        let (mut text, mut piece) = (Vec::new(), vec![0; 50_000]);
        let mut pace = tokio::time::interval(PACE);
        while !text.ends_with(b"\r\n0\r\n\r\n") {
            pace.tick().await;
            let count = reading.read(&mut piece).await.unwrap();
            assert!(count > 0, "it was cut off after {} bytes", text.len());
            text.extend_from_slice(&piece[..count]);
        }
        String::from_utf8(text).unwrap().matches("unknown_change").count()
    };
    let ((), results) = tokio::join!(sending, reading);
    assert_eq!(results, 100 * CHUNKS);
}
