//! One test's own place: a fresh database and a prefix of its own on the broker.

use std::future::Future;
use std::thread;

use keylane::postgres::migrate::migrate;
use lapin::ConnectionProperties;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use super::servers::{Servers, Vhost};
use super::{Process, Sender, Worker, wait};

/// Partitions of a test's ring: enough for keys to be spread.
pub(crate) const PARTITIONS: u16 = 2;
/// Generations and partitions that are cleared away at most.
const GENERATIONS_MAX: u32 = 8;
const PARTITIONS_MAX: u16 = 4;

/// Database, prefix and settings of one test.
pub(crate) struct Scene {
    pub servers: Servers,
    /// Of its names on the broker.
    pub prefix: String,
    /// Of its database.
    pub name: String,
    pub url: String,
    pub pool: PgPool,
    entities: String,
    /// Its servers outlive it, so it has to clear away what it made.
    shared: bool,
}

impl Scene {
    /// A scene on the shared servers: `tables` is SQL, `entities` TOML.
    pub(crate) async fn new(tables: &str, entities: &str) -> Self {
        let name = random_name();
        let mut scene = Self::on(Servers::shared(), &name, tables, entities).await;
        scene.shared = true;
        scene
    }

    /// A scene on servers of the test's own.
    pub(crate) async fn on_own(servers: &Servers, tables: &str, entities: &str) -> Self {
        Self::on(servers.clone(), &random_name(), tables, entities).await
    }

    /// A scene under the prefix that users have, on a virtual host of its own.
    pub(crate) async fn on_vhost(vhost: &Vhost, tables: &str, entities: &str) -> Self {
        let servers = Servers { amqp: vhost.url.clone(), ..Servers::shared() };
        let mut scene = Self::on(servers, "keylane", tables, entities).await;
        scene.shared = true;
        scene
    }

    async fn on(servers: Servers, prefix: &str, tables: &str, entities: &str) -> Self {
        let name = random_name();
        let owner = servers.database.parse::<PgConnectOptions>().unwrap();
        let mut admin = PgConnection::connect(&servers.admin).await.unwrap();
        let create = format!("create database {name} owner {}", owner.get_username());
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        let url = at_database(&servers.database, &name);
        // A role named like keylane's schema would find that one first.
        let options = url.parse::<PgConnectOptions>().unwrap().options([("search_path", "public")]);
        let pool = PgPoolOptions::new().max_connections(3).connect_lazy_with(options);
        let (prefix, entities) = (prefix.to_owned(), entities.to_owned());
        let scene = Self { servers, prefix, name, url, pool, entities, shared: false };
        let mut connection = scene.pool.acquire().await.unwrap();
        migrate(&mut connection).await.unwrap();
        drop(connection);
        scene.execute(tables).await;
        scene
    }

    /// The settings file of a worker.
    pub(crate) fn config(&self) -> String {
        format!(
            "amqp = {{ url = '{}', prefix = '{}', partitions = {PARTITIONS} }}\n\
             database = {{ url = '{}', connections_max = 6 }}\n\
             telemetry = {{ format = 'text' }}\n\
             generations = {{ settle_ms = 300, rest_ms = {}, spread_ms = 0 }}\n{}",
            self.servers.amqp,
            self.prefix,
            self.url,
            // Nobody kills the shared servers.
            if self.shared { 1 } else { 2_000 },
            self.entities
        )
    }

    /// A worker that is ready and has made a ring.
    pub(crate) async fn worker(&self) -> Worker {
        self.worker_with(&[]).await
    }

    /// A worker that is ready and has made a ring, with `settings` over those of [`Self::config`].
    pub(crate) async fn worker_with(&self, settings: &[(&str, &str)]) -> Worker {
        let worker = Worker::spawn(&self.config(), settings).ready().await;
        self.has_a_ring().await;
        worker
    }

    /// Waits until a ring has its turn.
    pub(crate) async fn has_a_ring(&self) {
        wait::until(wait::SOON, "a ring has its turn", async || {
            let first = "select generation from keylane.turns where closed_at is null
                          order by turn limit 1";
            self.number(first).await > 0
        })
        .await;
    }

    /// An ingress that is ready; a worker must have been there once.
    pub(crate) async fn ingress(&self) -> Process {
        self.ingress_with(&[]).await
    }

    /// The same with `settings` over those of [`Self::config`].
    pub(crate) async fn ingress_with(&self, settings: &[(&str, &str)]) -> Process {
        Process::spawn_command("ingress", &self.config(), settings).ready().await
    }

    /// A sender to this scene's exchange, which a worker must have declared once.
    pub(crate) async fn sender(&self) -> Sender {
        Sender::connect(&self.servers.amqp, &format!("{}.writes", self.prefix)).await.unwrap()
    }

    /// Runs statements that give nothing back.
    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap();
    }

    /// The rows of a query, each as a JSON object.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Value> {
        let sql = format!("select to_jsonb(q) from ({sql}) q");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.pool).await.unwrap()
    }

    /// The one number of a query; 0 for none.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.try_number(sql).await.unwrap()
    }

    /// The one number of a query, where the database may be away.
    pub(crate) async fn try_number(&self, sql: &str) -> Result<i64, sqlx::Error> {
        let sql = format!("select coalesce(({sql}), 0)::bigint");
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await
    }

    /// A connection of its own as superuser, for those who get in the way.
    pub(crate) async fn intruder(&self) -> PgConnection {
        PgConnection::connect(&at_database(&self.servers.admin, &self.name)).await.unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !self.shared {
            return;
        }
        let (servers, prefix) = (self.servers.clone(), self.prefix.clone());
        let name = self.name.clone();
        let cleared = beside(async move {
            clear_broker(&servers.amqp, &prefix).await.map_err(|error| error.to_string())?;
            drop_database(&servers.admin, &name).await.map_err(|error| error.to_string())
        });
        if let Err(error) = cleared {
            eprintln!("{} was not cleared away: {error}", self.prefix);
        }
    }
}

fn random_name() -> String {
    format!("t{}", &Uuid::new_v4().simple().to_string()[..10])
}

/// Runs `work` to its end on a thread of its own: a drop cannot wait otherwise.
fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::spawn(move || runtime().block_on(work)).join().unwrap()
}

async fn drop_database(admin: &str, name: &str) -> Result<(), sqlx::Error> {
    let mut admin = PgConnection::connect(admin).await?;
    let drop = format!("drop database {name} with (force)");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await?;
    admin.close().await
}

pub(crate) async fn clear_broker(url: &str, prefix: &str) -> lapin::Result<()> {
    let connection = lapin::Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let rings = (1..=GENERATIONS_MAX).map(|generation| format!("{prefix}.ring.{generation}"));
    let frame = ["writes", "held", "dead"].map(|name| format!("{prefix}.{name}"));
    for exchange in frame.into_iter().chain(rings) {
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
    }
    let partitions = (1..=GENERATIONS_MAX).flat_map(|generation| {
        (0..PARTITIONS_MAX).map(move |partition| format!("{generation}.{partition:03}"))
    });
    for queue in ["held".to_owned(), "dead".to_owned()].into_iter().chain(partitions) {
        let queue = format!("{prefix}.{queue}");
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    }
    connection.close(200, "done".into()).await
}

/// The address of another database on the same server.
pub(super) fn at_database(url: &str, name: &str) -> String {
    let mut url: url::Url = url.parse().unwrap();
    url.set_path(name);
    url.into()
}
