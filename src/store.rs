//! The seam between the partition loop and what keeps its promises: PostgreSQL, or the
//! simulation's memory.

use std::future::Future;
use std::time::Duration;

use uuid::Uuid;

use crate::core::batch::{Item, Letter};
use crate::core::failure::Failure;
use crate::core::partition::{Epoch, PartitionId};
use crate::core::plan::{CommitPlan, Loaded};
use crate::core::roll::Passing;

/// What a transaction is opened for.
#[derive(Debug, Clone, Default)]
pub struct Opening {
    /// Rows that somebody holds are waited for; otherwise they are found out and left alone.
    pub patient: bool,
    /// Take the lines of keys that are due, instead of deliveries.
    pub look: Option<Look>,
}

/// Which lines are taken.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Keys that somebody asked to look at: this lane takes them over.
    pub keys: Vec<String>,
    /// Letters.
    pub letters_max: usize,
    /// Bytes of their bodies together; one larger letter is taken all the same.
    pub bytes_max: usize,
}

/// What an open transaction knows before anything is loaded.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// The lines of the keys that are looked at, each in its order.
    pub letters: Vec<Letter>,
    /// Keys that are looked at.
    pub keys: usize,
    /// There is more in these lines, or there are more such keys.
    pub more: bool,
    /// Until the first key of the partition is due; nothing: none is.
    pub due: Option<Duration>,
    /// A key of the partition waits for a row that somebody holds.
    pub locked: bool,
}

/// One partition's place to store, with at most one transaction open.
///
/// A claim belongs to one connection. Whatever fails rolls back; where the connection is lost, or
/// the end of a COMMIT is unknown, the claim is gone too, and the next transaction answers
/// [`Failure::Unclaimed`]. Otherwise a retry could apply what was already committed: only a new
/// claim waits until the old transaction has ended.
pub trait Store: Send + Sync {
    /// Claims the partition under a new epoch; waits for the transaction of an older owner.
    fn claim(
        &mut self,
        partition: PartitionId,
    ) -> impl Future<Output = Result<Epoch, Failure>> + Send;

    /// Opens a transaction and checks the fence; locks the keys that are looked at.
    fn open(
        &mut self,
        partition: PartitionId,
        opening: &Opening,
    ) -> impl Future<Output = Result<Opened, Failure>> + Send;

    /// Locks the rows, and reads what these items need to be decided.
    fn load(&mut self, items: &[Item]) -> impl Future<Output = Result<Loaded, Failure>> + Send;

    /// Stores the plan in that transaction, and commits it: all or nothing.
    fn commit(
        &mut self,
        partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Judges the marker at the head of the lane, which has stood before it for so long, and
    /// stores what comes of it: a transaction of its own, under the same fence.
    fn pass(
        &mut self,
        partition: PartitionId,
        marker: Uuid,
        waited: Duration,
    ) -> impl Future<Output = Result<Passing, Failure>> + Send;

    /// Ends the transaction with nothing stored.
    fn roll_back(&mut self) -> impl Future<Output = ()> + Send;

    /// Gives the connection, and the claim with it, back. Between batches only.
    fn release(&mut self);

    /// Whether another partition of this process waits for a connection.
    fn is_scarce(&self) -> bool;
}
