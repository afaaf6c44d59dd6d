//! What people write first: one upsert and one acknowledgement a message; and the database without
//! any queue.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::{Channel, Consumer};
use serde_json::Value;
use sqlx::PgConnection;
use tokio::task::JoinSet;

use crate::broker::{connect, consume, per_second, queue};
use crate::database::Database;
use crate::sample::KEYS;

/// How long the slow ones are watched.
const WATCHED: Duration = Duration::from_secs(8);

pub(crate) const UPSERT: &str = "
    insert into public.customers as c (external_id, name, email, tier, city, balance, active, note,
                                       version, source_updated_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, 1, now())
    on conflict (external_id) do update
       set name = excluded.name, email = excluded.email, tier = excluded.tier,
           city = excluded.city, balance = excluded.balance, active = excluded.active,
           note = excluded.note, version = c.version + 1,
           source_updated_at = excluded.source_updated_at";

/// The naive consumer, a connection and a channel a partition; returns the rate.
pub(crate) async fn consumer(
    url: &str,
    database: &Database,
    generation: i32,
    partitions: i32,
) -> anyhow::Result<f64> {
    let connection = connect(url).await?;
    let mut consuming = JoinSet::new();
    let started = Instant::now();
    for partition in 0..partitions {
        let own = database.pool.acquire().await?;
        let (channel, consumer) = consume(&connection, queue(generation, partition)).await?;
        consuming.spawn(async move { one_by_one(own.detach(), channel, consumer, started).await });
    }
    let (mut written, mut last) = (0, started);
    while let Some(ended) = consuming.join_next().await {
        let (count, at) = ended??;
        written += count;
        last = last.max(at);
    }
    connection.close(200, "done".into()).await?;
    Ok(per_second(written, last - started))
}

async fn one_by_one(
    mut database: PgConnection,
    channel: Channel,
    mut consumer: Consumer,
    started: Instant,
) -> anyhow::Result<(u64, Instant)> {
    let mut written = 0;
    let mut last = started;
    while started.elapsed() < WATCHED
        && let Ok(Some(delivery)) =
            tokio::time::timeout(Duration::from_secs(1), consumer.next()).await
    {
        let delivery = delivery?;
        upsert(&mut database, &delivery).await?;
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await?;
        written += 1;
        last = Instant::now();
    }
    channel.close(200, "done".into()).await?;
    Ok((written, last))
}

async fn upsert(database: &mut PgConnection, delivery: &Delivery) -> anyhow::Result<()> {
    let body: Value = serde_json::from_slice(&delivery.data)?;
    let text = |name| body.get(name).and_then(Value::as_str);
    let writing = sqlx::query(UPSERT)
        .bind(delivery.routing_key.as_str())
        .bind(text("name"))
        .bind(text("email"))
        .bind(text("tier"))
        .bind(text("city"))
        .bind(body.get("balance").and_then(Value::as_i64))
        .bind(body.get("active").and_then(Value::as_bool))
        .bind(text("note"));
    writing.execute(database).await?;
    Ok(())
}

/// 16 clients of `pgbench` with the same upsert; returns the rate.
pub(crate) fn clients(pgbench: &str, url: &str) -> anyhow::Result<f64> {
    let values = "'CUST-' || lpad((:key)::text, 6, '0'), 'Ada Lovelace ' || :n, \
                  'ada.' || :n || '@example.org', 'gold', 'London', :n, :n % 2 = 0, \
                  'asked for a call back on Monday, order ' || :n, 1, now()";
    let (head, rest) = UPSERT.split_once("values (").context("cut the upsert")?;
    let (_, tail) = rest.split_once(")\n").context("cut the upsert")?;
    let set = format!("\\set key random(0, {})\n\\set n random(0, 999999)\n", KEYS - 1);
    let script =
        format!("{set}{}", format!("{head} values ({values}) {tail};\n").replace('\n', " "));
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), script)?;
    let seconds = WATCHED.as_secs().to_string();
    let ran = Command::new(pgbench)
        .args(["-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", &seconds, "-f"])
        .arg(file.path())
        .arg(url)
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("run {pgbench}"))?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    if !ran.status.success() {
        bail!("pgbench: {}", String::from_utf8_lossy(&ran.stderr));
    }
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let rate = rate.and_then(|rest| rest.split(' ').next()).context("read pgbench's answer")?;
    Ok(rate.parse()?)
}
