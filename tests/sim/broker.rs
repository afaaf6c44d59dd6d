//! The simulated broker: queues with a single active consumer, a window of unsettled deliveries,
//! and redelivery in order at the head.
//!
//! Owns: what the broker knows of its consumers, and what lies in a dead channel's buffer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use keylane::core::message::Message;
use keylane::deliveries::{Deliveries, Gone};
use tokio::sync::Notify;

use super::database::Database;
use super::process::Process;
use super::worker::World;

/// The number under which a message was accepted; a lower one comes first.
pub(crate) type Accepted = u64;

#[derive(Debug, Default)]
struct Queue {
    ready: BTreeMap<Accepted, Message>,
    /// In the order of subscribing; the first that may is active.
    consumers: Vec<u64>,
    active: Option<u64>,
    /// The active consumer gets nothing more, and gives way once it has settled everything.
    gives_way: bool,
}

#[derive(Debug)]
struct Consumer {
    queue: usize,
    connection: u64,
    prefetch: usize,
    tag: u64,
    /// Sent and not settled.
    unsettled: BTreeMap<u64, (Accepted, Message)>,
    /// What the client has not looked at; it outlives the connection.
    buffer: VecDeque<(u64, Message)>,
    lives: bool,
    arrived: Arc<Notify>,
}

/// All queues and consumers.
#[derive(Debug)]
pub(crate) struct Broker {
    queues: Vec<Queue>,
    consumers: BTreeMap<u64, Consumer>,
    consumers_made: u64,
    accepted: Accepted,
    /// Windows that went back: only then may a message come twice.
    pub(crate) redeliveries: u64,
}

impl Broker {
    pub(crate) fn new(queues: usize) -> Self {
        let queues = (0..queues).map(|_| Queue::default()).collect();
        let (consumers, consumers_made, accepted, redeliveries) = (BTreeMap::new(), 0, 0, 0);
        Self { queues, consumers, consumers_made, accepted, redeliveries }
    }

    /// Which queue a routing key belongs to.
    pub(crate) fn queue_of(&self, routing_key: &str) -> usize {
        let sum: usize = routing_key.bytes().map(usize::from).sum();
        sum % self.queues.len()
    }

    pub(crate) fn publish(&mut self, message: Message) {
        let queue = self.queue_of(&message.routing_key);
        self.accepted += 1;
        let accepted = self.accepted;
        self.queues[queue].ready.insert(accepted, message);
        self.deliver(queue);
    }

    /// Whether nothing is left, neither waiting nor unsettled.
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.ready.is_empty())
            && self
                .consumers
                .values()
                .all(|consumer| !consumer.lives || consumer.unsettled.is_empty())
    }

    fn subscribe(&mut self, queue: usize, connection: u64, prefetch: usize) -> (u64, Arc<Notify>) {
        self.consumers_made += 1;
        let arrived = Arc::new(Notify::new());
        let consumer = Consumer {
            queue,
            connection,
            prefetch,
            tag: 0,
            unsettled: BTreeMap::new(),
            buffer: VecDeque::new(),
            lives: true,
            arrived: Arc::clone(&arrived),
        };
        self.consumers.insert(self.consumers_made, consumer);
        self.queues[queue].consumers.push(self.consumers_made);
        self.deliver(queue);
        (self.consumers_made, arrived)
    }

    /// Hands out what the active consumer's window allows.
    fn deliver(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        if queue.active.is_none() {
            queue.active = queue.consumers.first().copied();
            queue.gives_way = false;
        }
        let Some(consumer) = queue.active.and_then(|id| self.consumers.get_mut(&id)) else {
            return;
        };
        while !queue.gives_way && consumer.unsettled.len() < consumer.prefetch {
            let Some((accepted, message)) = queue.ready.pop_first() else { return };
            consumer.tag += 1;
            consumer.buffer.push_back((consumer.tag, message.clone()));
            consumer.unsettled.insert(consumer.tag, (accepted, message));
            consumer.arrived.notify_one();
        }
    }

    /// Another consumer became the better one: the active one is drained, then it takes over.
    pub(crate) fn prefer_another(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        let step = queue.consumers.len().min(1);
        queue.consumers.rotate_left(step);
        queue.gives_way =
            queue.active.is_some() && queue.active != queue.consumers.first().copied();
        self.give_way(at);
    }

    fn give_way(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        let active = queue.active.and_then(|id| self.consumers.get(&id));
        if queue.gives_way && active.is_none_or(|consumer| consumer.unsettled.is_empty()) {
            queue.active = None;
        }
        self.deliver(at);
    }

    fn settle(&mut self, id: u64, tag: u64) -> Result<Vec<Message>, Gone> {
        let consumer = self.consumers.get_mut(&id).filter(|consumer| consumer.lives).ok_or(Gone)?;
        assert!(consumer.unsettled.contains_key(&tag), "a delivery is settled once");
        let rest = consumer.unsettled.split_off(&(tag + 1));
        let settled = std::mem::replace(&mut consumer.unsettled, rest);
        let queue = consumer.queue;
        self.give_way(queue);
        Ok(settled.into_values().map(|(_, message)| message).collect())
    }

    /// A channel is closed: what is unsettled goes back to its place at the head.
    fn close(&mut self, id: u64) {
        let Some(consumer) = self.consumers.get_mut(&id).filter(|consumer| consumer.lives) else {
            return;
        };
        consumer.lives = false;
        consumer.arrived.notify_one();
        let back = std::mem::take(&mut consumer.unsettled);
        let at = consumer.queue;
        self.redeliveries += u64::from(!back.is_empty());
        let queue = &mut self.queues[at];
        queue.ready.extend(back.into_values());
        queue.consumers.retain(|other| *other != id);
        if queue.active == Some(id) {
            queue.active = None;
        }
        self.deliver(at);
    }

    /// A network is cut somewhere.
    pub(crate) fn lose_any(&mut self, choice: u64) {
        let living: Vec<u64> = self
            .consumers
            .values()
            .filter(|consumer| consumer.lives)
            .map(|consumer| consumer.connection)
            .collect();
        let count = u64::try_from(living.len()).unwrap_or(0).max(1);
        let chosen = usize::try_from(choice % count).unwrap_or(0);
        if let Some(connection) = living.get(chosen) {
            self.lose(*connection);
        }
    }

    /// The broker gives up a connection; its client may not know for long.
    pub(crate) fn lose(&mut self, connection: u64) {
        let lost = self.consumers.iter().filter(|(_, consumer)| consumer.connection == connection);
        for id in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
    }
}

/// A consumer, as its client sees it.
pub(crate) struct Subscription {
    broker: Arc<Mutex<Broker>>,
    database: Arc<Mutex<Database>>,
    process: Process,
    id: u64,
    arrived: Arc<Notify>,
}

impl Subscription {
    pub(crate) fn open(world: &World, process: &Process, queue: usize) -> Self {
        let mut server = world.broker.lock().expect("nobody panics with the broker");
        let (id, arrived) = server.subscribe(queue, process.id, world.prefetch);
        drop(server);
        let (broker, database) = (Arc::clone(&world.broker), Arc::clone(&world.database));
        Self { broker, database, process: process.clone(), id, arrived }
    }

    fn server(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().expect("nobody panics with the broker")
    }

    /// Closes the channel.
    pub(crate) fn close(self) {
        self.server().close(self.id);
    }

    fn lives(&self) -> bool {
        self.server().consumers.get(&self.id).is_some_and(|consumer| consumer.lives)
    }

    fn take(&self) -> Option<(u64, Message)> {
        self.server().consumers.get_mut(&self.id)?.buffer.pop_front()
    }
}

impl Deliveries for Subscription {
    async fn next(&mut self) -> Option<(u64, Message)> {
        loop {
            let next = self.take();
            if next.is_some() || !self.lives() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    fn arrived(&mut self) -> Option<(u64, Message)> {
        self.take()
    }

    async fn prove_alive(&self) -> Result<(), Gone> {
        self.process.step("prove alive").await;
        if self.lives() { Ok(()) } else { Err(Gone) }
    }

    async fn settle_through(&self, tag: u64) -> Result<(), Gone> {
        self.process.step("settle").await;
        let settled = self.server().settle(self.id, tag);
        if let Ok(messages) = &settled {
            self.database.lock().expect("nobody panics with the database").settled(messages);
        }
        self.process.step("settled").await;
        // An acknowledgement into a dead connection is often not noticed.
        if settled.is_err() && self.process.roll(|dice| dice.below(2)) == 0 {
            return Ok(());
        }
        settled.map(drop)
    }
}
