//! Measures keylane's worker beside what its parts can do alone: one run, one machine, the same
//! messages. `make bench` starts private servers for it.
//!
//! Rates of a shared machine are worth little, their ratios within a run are.
//! MESSAGES sets the number of messages; ONLY names the parts to run:
//! null,naive,clients,uniform,hot,counters,latency,http. `HTTP_REQUESTS`, where it is set, is the number
//! of requests over which the memory is watched.

mod broker;
mod database;
mod http;
mod latency;
mod naive;
mod report;
mod sample;
mod worker;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, ensure};

use broker::per_second;
use database::Database;
use report::{Report, Run};
use sample::Shape;
use worker::Site;

/// Messages a part, unless MESSAGES says otherwise.
const MESSAGES: u64 = 200_000;
/// Partitions.
const PARTITIONS: i32 = 8;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let only = variable("ONLY");
    let bench = Bench {
        site: Site {
            amqp: variable("AMQP_URL").context("AMQP_URL is not set: run `make bench`")?,
            database: variable("DATABASE_URL").context("DATABASE_URL is not set")?,
            partitions: PARTITIONS,
        },
        admin: variable("DATABASE_ADMIN_URL").context("DATABASE_ADMIN_URL is not set")?,
        pgbench: variable("PGBENCH").unwrap_or_else(|| "pgbench".to_owned()),
        messages: variable("MESSAGES").map_or(Ok(MESSAGES), |text| text.parse())?,
        http_requests: variable("HTTP_REQUESTS").map(|text| text.parse()).transpose()?,
        only: only.map(|only| only.split(',').map(str::to_owned).collect()),
    };
    let report = bench.run().await?;
    report.print(&mut std::io::stdout().lock())?;
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name)?.into_string().ok()
}

struct Bench {
    site: Site,
    admin: String,
    pgbench: String,
    messages: u64,
    /// Memory is measured over so many, where it is asked for.
    http_requests: Option<u64>,
    only: Option<Vec<String>>,
}

impl Bench {
    fn wants(&self, part: &str) -> bool {
        let wanted = self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == part));
        if wanted {
            // Progress only: nothing is lost if nobody reads it.
            drop(writeln!(std::io::stderr(), "measuring: {part}"));
        }
        wanted
    }

    async fn run(&self) -> anyhow::Result<Report> {
        let Site { amqp, database, partitions } = &self.site;
        let database_url = database;
        let database = Database::open(database_url, &self.admin).await?;
        self.site.migrate().await?;
        // The first worker makes the ring.
        let mut worker = self.site.start().await?;
        worker.ready().await?;
        let generation = database.generation().await?;
        worker.stop().await?;
        broker::purge(amqp, generation, *partitions).await?;

        let mut report = Report::default();
        if self.wants("null") {
            report.publish = Some(broker::fill(amqp, Shape::Uniform, self.messages).await?);
            report.null = Some(broker::drain(amqp, generation, *partitions).await?);
        }
        if self.wants("naive") {
            database.clear().await?;
            broker::fill(amqp, Shape::Uniform, self.messages).await?;
            report.naive = Some(naive::consumer(amqp, &database, generation, *partitions).await?);
            broker::purge(amqp, generation, *partitions).await?;
        }
        if self.wants("clients") {
            database.clear().await?;
            report.clients = Some(naive::clients(&self.pgbench, database_url)?);
        }
        let drained = [
            ("uniform", "keylane, 50,000 keys alike", Shape::Uniform),
            ("hot", "keylane, one hot key", Shape::OneKey),
            ("counters", "keylane, three hot counters", Shape::ThreeCounters),
        ];
        for (part, name, shape) in drained {
            if self.wants(part) {
                let (rate, memory_mib) = self.drained(&database, shape).await?;
                report.runs.push(Run { name, rate, memory_mib });
            }
        }
        if self.wants("latency") {
            database.clear().await?;
            let mut worker = self.site.start().await?;
            worker.ready().await?;
            let latencies = latency::measure(amqp).await?;
            report.latency = Some([500, 990, 999].map(|share| latencies.at(share)));
            worker.stop().await?;
        }
        if self.wants("http") {
            report.http = http::measure(&self.site, &database).await?;
        }
        if let Some(requests) = self.http_requests {
            report.memory = http::memory(&self.site, &database, requests).await?;
        }
        Ok(report)
    }

    /// Lets a worker drain full queues; returns the rate, from the start of the first transaction
    /// to the last outcome, and the worker's peak memory.
    async fn drained(&self, database: &Database, shape: Shape) -> anyhow::Result<(f64, f64)> {
        database.clear().await?;
        broker::fill(&self.site.amqp, shape, self.messages).await?;
        let mut worker = self.site.start().await?;
        worker.settled(self.messages).await?;
        let ended = keylane::clock::now();
        let memory = worker.memory_mib("VmHWM")?;
        worker.stop().await?;
        let (applied, first) = database.applied().await?;
        ensure!(u64::try_from(applied)? == self.messages, "{applied} writes were applied");
        if shape == Shape::ThreeCounters {
            let sum = database.balances().await?;
            ensure!(sum == applied, "the counters came to {sum}");
        }
        let took = Duration::try_from(ended - first.context("find the first write")?)?;
        Ok((per_second(self.messages, took), memory))
    }
}
