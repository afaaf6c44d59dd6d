//! Writes over HTTP: keylane, waited for and not, beside a handler that upserts at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::patch;
use serde_json::Value;
use sqlx::PgPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::database::Database;
use crate::latency::Latencies;
use crate::naive::UPSERT;
use crate::sample::{KEYS, upsert};
use crate::worker::Site;

/// How long each is asked.
const ASKED_FOR: Duration = Duration::from_secs(6);
/// How many callers ask at once.
const CALLERS: [usize; 3] = [1, 64, 256];

/// How often memory is looked at, and by how many callers it is taken.
const SAMPLES: u64 = 10;
const MEMORY_CALLERS: usize = 64;
/// Nobody waits longer for a tenth of the requests.
const ROUND_MAX: Duration = Duration::from_mins(10);

/// How one contender did with so many callers.
pub(crate) struct Asked {
    pub(crate) name: &'static str,
    pub(crate) callers: usize,
    /// Answers a second.
    pub(crate) rate: f64,
    /// p50 and p99 in milliseconds.
    pub(crate) latency: [f64; 2],
}

/// What a caller asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A write of its own, waited for.
    Waited,
    /// The same, not waited for.
    Accepted,
    /// One write again and again.
    Repeated,
}

/// Every contender with every number of callers.
pub(crate) async fn measure(site: &Site, database: &Database) -> anyhow::Result<Vec<Asked>> {
    let mut all = Vec::new();
    database.clear().await?;
    let (direct, serving) = direct(database.pool.clone()).await?;
    for callers in CALLERS {
        let name = "direct: one upsert, no queue, no ledger";
        all.push(ask(name, &direct, callers, Kind::Waited).await?);
    }
    drop(serving);
    database.clear().await?;
    let mut process = site.start_as("run").await?;
    process.ready().await?;
    let address = process.address().to_owned();
    for (name, kind) in [
        ("keylane, waits for the commit", Kind::Waited),
        ("keylane, respond-async", Kind::Accepted),
        ("keylane, a stored answer", Kind::Repeated),
    ] {
        for callers in CALLERS {
            all.push(ask(name, &address, callers, kind).await?);
        }
    }
    process.stop().await?;
    Ok(all)
}

/// The handler that people write first.
async fn direct(pool: PgPool) -> anyhow::Result<(String, JoinSet<()>)> {
    async fn write(
        State(pool): State<PgPool>,
        Path(key): Path<String>,
        body: axum::body::Bytes,
    ) -> StatusCode {
        let Ok(body) = serde_json::from_slice::<Value>(&body) else {
            return StatusCode::BAD_REQUEST;
        };
        let text = |name| body.get(name).and_then(Value::as_str);
        let writing = sqlx::query(UPSERT)
            .bind(key)
            .bind(text("name"))
            .bind(text("email"))
            .bind(text("tier"))
            .bind(text("city"))
            .bind(body.get("balance").and_then(Value::as_i64))
            .bind(body.get("active").and_then(Value::as_bool))
            .bind(text("note"));
        match writing.execute(&pool).await {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let router = Router::new().route("/v1/customer/{key}", patch(write)).with_state(pool);
    let mut serving = JoinSet::new();
    serving.spawn(async move { drop(axum::serve(listener, router).await) });
    Ok((address, serving))
}

async fn ask(
    name: &'static str,
    address: &str,
    callers: usize,
    kind: Kind,
) -> anyhow::Result<Asked> {
    let quota =
        Quota { next: AtomicU64::new(0), most: u64::MAX, until: Instant::now() + ASKED_FOR };
    let mut sorted = all_ask(address, callers, kind, quota).await?;
    sorted.sort_unstable();
    let rate = f64::from(u32::try_from(sorted.len())?) / ASKED_FOR.as_secs_f64();
    let latencies = Latencies { sorted };
    Ok(Asked { name, callers, rate, latency: [latencies.at(500), latencies.at(990)] })
}

/// How much callers ask together.
struct Quota {
    next: AtomicU64,
    most: u64,
    until: Instant,
}

/// How long each answer took.
async fn all_ask(
    address: &str,
    callers: usize,
    kind: Kind,
    quota: Quota,
) -> anyhow::Result<Vec<Duration>> {
    let quota = Arc::new(quota);
    let mut calling = JoinSet::new();
    for _ in 0..callers {
        let (address, quota) = (address.to_owned(), Arc::clone(&quota));
        calling.spawn(async move { caller(&address, &quota, kind).await });
    }
    let mut took = Vec::new();
    while let Some(called) = calling.join_next().await {
        took.extend(called??);
    }
    Ok(took)
}

/// Lets `requests` of every kind pass through one process, and says after each tenth of them how
/// much memory it has, in MiB.
pub(crate) async fn memory(
    site: &Site,
    database: &Database,
    requests: u64,
) -> anyhow::Result<Vec<(u64, f64)>> {
    database.clear().await?;
    let mut process = site.start_as("run").await?;
    process.ready().await?;
    let mut samples = vec![(0, process.memory_mib("VmRSS")?)];
    let kinds = [Kind::Waited, Kind::Accepted, Kind::Repeated];
    for round in 1..=SAMPLES {
        for kind in kinds {
            let most = requests / SAMPLES / u64::try_from(kinds.len())?;
            let until = Instant::now() + ROUND_MAX;
            let quota = Quota { next: AtomicU64::new(0), most, until };
            let answers = all_ask(process.address(), MEMORY_CALLERS, kind, quota).await?.len();
            ensure!(u64::try_from(answers)? == most, "{answers} of {most} were answered");
        }
        samples.push((requests / SAMPLES * round, process.memory_mib("VmRSS")?));
    }
    process.stop().await?;
    Ok(samples)
}

/// One connection that asks again as soon as it is answered.
async fn caller(address: &str, quota: &Quota, kind: Kind) -> anyhow::Result<Vec<Duration>> {
    let mut stream = BufStream::new(TcpStream::connect(address).await?);
    stream.get_ref().set_nodelay(true)?;
    let mut took = Vec::new();
    while Instant::now() < quota.until {
        let number = quota.next.fetch_add(1, Ordering::Relaxed);
        if number >= quota.most {
            break;
        }
        let (key, id) = match kind {
            Kind::Repeated => (0, "the-same".to_owned()),
            Kind::Waited | Kind::Accepted => {
                (number % u64::from(KEYS), uuid::Uuid::new_v4().to_string())
            }
        };
        let value = if kind == Kind::Repeated { 0 } else { u32::try_from(number % 1_000_000)? };
        let prefer = if kind == Kind::Accepted { "Prefer: respond-async\r\n" } else { "" };
        let body = upsert(value);
        let head = format!(
            "PATCH /v1/customer/CUST-{key:06} HTTP/1.1\r\nHost: bench\r\n{prefer}\
             Content-Type: application/json\r\nIdempotency-Key: \"{id}\"\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let started = Instant::now();
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        let status = answer(&mut stream).await?;
        took.push(started.elapsed());
        ensure!((200..300).contains(&status), "answered {status}");
    }
    Ok(took)
}

/// Reads one answer; its status.
async fn answer(stream: &mut BufStream<TcpStream>) -> anyhow::Result<u16> {
    let (mut status, mut length) = (0, 0);
    for index in 0.. {
        let line = line(stream).await?;
        if line.is_empty() {
            break;
        }
        if index == 0 {
            status = line.split(' ').nth(1).context("read a status")?.parse()?;
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(status)
}

async fn line(stream: &mut BufStream<TcpStream>) -> anyhow::Result<String> {
    use tokio::io::AsyncBufReadExt;
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        bail!("the connection was closed");
    }
    Ok(line.trim_end().to_owned())
}
