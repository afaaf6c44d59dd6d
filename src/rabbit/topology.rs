//! Declares exchanges and queues as WIRE.md names them, and finds out what is there.
//!
//! Owns: every argument. They can never change later, so an existing thing with other arguments is
//! an error that names the argument, and nothing is repaired.
//! Never: declares a ring twice. Whoever does not own a generation looks at it passively.

use lapin::ExchangeKind;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::core::partition::PartitionId;
use crate::core::roll::{Ring, Source};

use super::connection::{Connection, short, within};
use super::error::BrokerError;

/// Redeliveries after which the broker gives a message up. A small number would kill a whole
/// prefetch window in as many restarts; keylane counts and decides itself.
const DELIVERY_LIMIT: i32 = 100_000;

/// The names and arguments below one prefix.
pub struct Topology<'a> {
    connection: &'a Connection,
    prefix: &'a str,
}

impl<'a> Topology<'a> {
    /// The topology below `prefix`.
    pub const fn new(connection: &'a Connection, prefix: &'a str) -> Self {
        Self { connection, prefix }
    }

    /// Declares what stands for ever: the exchange for senders, and the queues for what has no
    /// partition yet and for what the broker gives up.
    pub async fn declare_frame(&self) -> Result<(), BrokerError> {
        let dead = self.name("dead");
        let held = self.name("held");
        self.fanout(&dead, FieldTable::default()).await?;
        self.queue(&dead, dead_arguments()).await?;
        self.bind_queue(&dead, &dead).await?;
        self.fanout(&held, FieldTable::default()).await?;
        self.queue(&held, partition_arguments(&dead)).await?;
        self.bind_queue(&held, &held).await?;
        self.fanout(&self.name("writes"), alternate(&held)).await
    }

    /// Declares a ring that nobody declared before, and its queues; writes do not flow yet.
    pub async fn declare_ring(&self, generation: i32, partitions: i32) -> Result<(), BrokerError> {
        let ring = self.exchange(Source::Ring(generation));
        let channel = self.connection.channel().await?;
        let options = ExchangeDeclareOptions::default();
        let kind = ExchangeKind::Custom("x-consistent-hash".into());
        let arguments = alternate(&self.name("held"));
        let declaring = channel.exchange_declare(short("ring", &ring)?, kind, options, arguments);
        within(self.connection.answer_max(), declaring).await?;
        for partition in 0..partitions {
            let queue = PartitionId { generation, partition }.queue(self.prefix);
            self.queue(&queue, partition_arguments(&self.name("dead"))).await?;
            // The binding key is the weight.
            let binding = channel.queue_bind(
                short("queue", &queue)?,
                short("ring", &ring)?,
                "1".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            within(self.connection.answer_max(), binding).await?;
        }
        Ok(())
    }

    /// Lets writes flow to the source of a turn, beside all that they flow to already.
    pub async fn bind(&self, source: Source, turn: i64) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let binding = channel.exchange_bind(
            short("exchange", &self.exchange(source))?,
            short("exchange", &self.name("writes"))?,
            short("binding key", &binding_key(source, turn))?,
            ExchangeBindOptions::default(),
            FieldTable::default(),
        );
        within(self.connection.answer_max(), binding).await
    }

    /// Takes the source of a turn out of the way of new writes, whether it is there or not.
    pub async fn unbind(&self, source: Source, turn: i64) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let unbinding = channel.exchange_unbind(
            short("exchange", &self.exchange(source))?,
            short("exchange", &self.name("writes"))?,
            short("binding key", &binding_key(source, turn))?,
            ExchangeUnbindOptions::default(),
            FieldTable::default(),
        );
        match within(self.connection.answer_max(), unbinding).await {
            Ok(()) | Err(BrokerError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What there is of a ring.
    pub async fn ring(&self, generation: i32, partitions: i32) -> Result<Ring, BrokerError> {
        let there = self.exists(self.look_at_ring(generation)).await?;
        let queues = self.queues(generation, partitions).await?;
        Ok(match (there, queues) {
            (false, 0) => Ring::Unknown,
            (false, _) => Ring::Gone,
            (true, queues) if queues == partitions => Ring::Whole,
            (true, _) => Ring::Broken,
        })
    }

    /// Deletes a ring and its queues, which must be unbound, and empty of anything that has no
    /// copy elsewhere.
    pub async fn delete(&self, generation: i32, partitions: i32) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let ring = short("ring", &self.exchange(Source::Ring(generation)))?;
        let deleting = channel.exchange_delete(ring, ExchangeDeleteOptions::default());
        within(self.connection.answer_max(), deleting).await?;
        for partition in 0..partitions {
            let queue = PartitionId { generation, partition }.queue(self.prefix);
            let deleting =
                channel.queue_delete(short("queue", &queue)?, QueueDeleteOptions::default());
            within(self.connection.answer_max(), deleting).await?;
        }
        Ok(())
    }

    /// How many of a generation's queues are there.
    async fn queues(&self, generation: i32, partitions: i32) -> Result<i32, BrokerError> {
        let mut there = 0;
        for partition in 0..partitions {
            let queue = PartitionId { generation, partition }.queue(self.prefix);
            there += i32::from(self.exists(self.look_at_queue(queue)).await?);
        }
        Ok(there)
    }

    async fn exists(
        &self,
        looking: impl Future<Output = Result<(), BrokerError>>,
    ) -> Result<bool, BrokerError> {
        match looking.await {
            Ok(()) => Ok(true),
            Err(BrokerError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn look_at_ring(&self, generation: i32) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let kind = ExchangeKind::Custom("x-consistent-hash".into());
        let name = short("ring", &self.exchange(Source::Ring(generation)))?;
        let looking = channel.exchange_declare(name, kind, options, FieldTable::default());
        within(self.connection.answer_max(), looking).await
    }

    async fn look_at_queue(&self, name: String) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let looking = channel.queue_declare(short("queue", &name)?, options, FieldTable::default());
        within(self.connection.answer_max(), looking).await.map(drop)
    }

    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn exchange(&self, source: Source) -> String {
        match source {
            Source::Held => self.name("held"),
            Source::Ring(generation) => format!("{}.ring.{generation}", self.prefix),
        }
    }

    async fn fanout(&self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let name = short("exchange", name)?;
        let declaring = channel.exchange_declare(name, ExchangeKind::Fanout, options, arguments);
        within(self.connection.answer_max(), declaring).await
    }

    async fn queue(&self, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declaring = channel.queue_declare(short("queue", name)?, options, arguments);
        within(self.connection.answer_max(), declaring).await.map(drop)
    }

    async fn bind_queue(&self, queue: &str, exchange: &str) -> Result<(), BrokerError> {
        let channel = self.connection.channel().await?;
        let binding = channel.queue_bind(
            short("queue", queue)?,
            short("exchange", exchange)?,
            ShortString::default(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        within(self.connection.answer_max(), binding).await
    }
}

/// Held comes back turn after turn: whoever wakes up late and unbinds an old one must not meet the
/// new one. A fanout exchange does not look at the key.
fn binding_key(source: Source, turn: i64) -> String {
    match source {
        Source::Held => format!("turn.{turn}"),
        Source::Ring(_) => String::new(),
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn alternate(exchange: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("alternate-exchange".into(), text(exchange));
    arguments
}

/// What the broker gives up lands here: it must not give it up once more.
fn dead_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    arguments
}

fn partition_arguments(dead: &str) -> FieldTable {
    let mut arguments = dead_arguments();
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    arguments.insert("x-dead-letter-exchange".into(), text(dead));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}
