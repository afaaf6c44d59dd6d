//! The seam between the partition loop and the broker: RabbitMQ, or the simulation's queue.

use std::future::Future;

use crate::core::message::Message;

/// The subscription has ended; what it still had in hand comes again, to whoever is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// One queue's deliveries and their settlement.
pub trait Deliveries: Send + Sync {
    /// Waits for the next delivery, under the number that settles it. Giving up the wait loses
    /// nothing.
    fn next(&mut self) -> impl Future<Output = Option<(u64, Message)>> + Send;

    /// The next delivery, if it has arrived already.
    fn arrived(&mut self) -> Option<(u64, Message)>;

    /// Proves that the subscription still lives, by an answer of the broker.
    fn prove_alive(&self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Puts a copy of a delivery behind all that is in held; whether that is confirmed.
    fn hold(&self, message: &Message) -> impl Future<Output = Result<bool, Gone>> + Send;

    /// Settles every delivery up to `tag`.
    fn settle_through(&self, tag: u64) -> impl Future<Output = Result<(), Gone>> + Send;
}
