//! The simulated broker: queues with a single active consumer, a window of unsettled deliveries,
//! and redelivery in order at the head.
//!
//! Owns: what the broker knows of its consumers, and what lies in a dead channel's buffer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use keylane::core::message::Message;
use keylane::core::partition::PartitionId;
use keylane::deliveries::{Deliveries, Gone};
use tokio::sync::Notify;

use super::database::Database;
use super::process::Process;
use super::routing::{Routing, queues};
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
    queue: PartitionId,
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
    queues: BTreeMap<PartitionId, Queue>,
    pub(crate) routing: Routing,
    /// How often it was started again; no connection outlives that.
    pub(crate) restarts: u64,
    consumers: BTreeMap<u64, Consumer>,
    consumers_made: u64,
    accepted: Accepted,
    /// Windows that went back: only then may a message come twice.
    pub(crate) redeliveries: u64,
}

impl Broker {
    pub(crate) fn new() -> Self {
        let (consumers, consumers_made, accepted, redeliveries) = (BTreeMap::new(), 0, 0, 0);
        let queues = BTreeMap::from([(PartitionId::HELD, Queue::default())]);
        let (routing, restarts) = (Routing::default(), 0);
        Self { queues, routing, restarts, consumers, consumers_made, accepted, redeliveries }
    }

    /// Declares a ring and its queues.
    pub(crate) fn declare(&mut self, generation: i32, partitions: i32) {
        self.routing.declare(generation, partitions);
        for id in queues(generation, partitions) {
            self.queues.entry(id).or_default();
        }
    }

    /// A queue goes, with all that is in it.
    pub(crate) fn delete(&mut self, queue: PartitionId) {
        let consumers = self.consumers.iter().filter(|(_, consumer)| consumer.queue == queue);
        for id in consumers.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
        self.queues.remove(&queue);
    }

    /// A number that was never used.
    pub(crate) fn next_number(&mut self) -> Accepted {
        self.accepted += 1;
        self.accepted
    }

    /// Routes a message; returns how many copies there are of it now.
    pub(crate) fn publish(&mut self, message: &Message) -> usize {
        let to = self.routing.of(&message.routing_key);
        for queue in &to {
            self.put(*queue, message.clone());
        }
        to.len()
    }

    /// Puts a message straight into a queue.
    pub(crate) fn put(&mut self, queue: PartitionId, message: Message) {
        if !self.has(queue) {
            return;
        }
        let accepted = self.next_number();
        self.queue(queue).ready.insert(accepted, message);
        self.deliver(queue);
    }

    fn queue(&mut self, id: PartitionId) -> &mut Queue {
        self.queues.get_mut(&id).expect("a queue is declared first, and never deleted")
    }

    /// All connections break, and the rings are forgotten.
    pub(crate) fn restart(&mut self) {
        self.restarts += 1;
        self.routing.forget();
        for id in self.consumers.keys().copied().collect::<Vec<_>>() {
            self.close(id);
        }
    }

    /// Whether no write is left in a queue, neither waiting nor unsettled.
    pub(crate) fn is_drained(&self, id: PartitionId) -> bool {
        let is_write = |message: &Message| message.marker().is_none();
        let of_queue = |consumer: &&Consumer| consumer.lives && consumer.queue == id;
        let unsettled = self.consumers.values().filter(of_queue);
        let mut unsettled = unsettled.flat_map(|consumer| consumer.unsettled.values());
        self.queues.get(&id).is_none_or(|queue| !queue.ready.values().any(is_write))
            && !unsettled.any(|(_, message)| is_write(message))
    }

    /// Whether no write is left anywhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.keys().all(|id| self.is_drained(*id))
    }

    /// One of the queues.
    pub(crate) fn any_queue(&self, choice: u64) -> PartitionId {
        let chosen = usize::try_from(choice).unwrap_or(0) % self.queues.len();
        *self.queues.keys().nth(chosen).expect("held is there")
    }

    /// Whether there is such a queue.
    pub(crate) fn has(&self, queue: PartitionId) -> bool {
        self.queues.contains_key(&queue)
    }

    fn subscribe(
        &mut self,
        queue: PartitionId,
        connection: u64,
        prefetch: usize,
    ) -> (u64, Arc<Notify>) {
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
        let consumer = self.consumers_made;
        self.queue(queue).consumers.push(consumer);
        self.deliver(queue);
        (self.consumers_made, arrived)
    }

    /// Hands out what the active consumer's window allows.
    fn deliver(&mut self, at: PartitionId) {
        let Some(queue) = self.queues.get_mut(&at) else { return };
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
    pub(crate) fn prefer_another(&mut self, at: PartitionId) {
        let queue = self.queue(at);
        let step = queue.consumers.len().min(1);
        queue.consumers.rotate_left(step);
        queue.gives_way =
            queue.active.is_some() && queue.active != queue.consumers.first().copied();
        self.give_way(at);
    }

    fn give_way(&mut self, at: PartitionId) {
        let Some(queue) = self.queues.get_mut(&at) else { return };
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
        let queue = self.queue(at);
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
    pub(crate) fn open(world: &World, process: &Process, queue: PartitionId) -> Self {
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

    async fn hold(&self, message: &Message) -> Result<bool, Gone> {
        self.process.step("hold").await;
        if self.process.roll(|dice| dice.below(4)) == 0 {
            return Ok(false);
        }
        self.database.lock().expect("nobody panics with the database").copied(message, 1);
        self.server().put(PartitionId::HELD, message.clone());
        self.process.step("held").await;
        Ok(true)
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
