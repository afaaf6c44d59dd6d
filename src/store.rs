//! The seam between the partition loop and what keeps its promises: PostgreSQL, or the
//! simulation's memory.

use std::future::Future;

use crate::core::batch::{Item, Wanted};
use crate::core::failure::Failure;
use crate::core::partition::{Epoch, PartitionId};
use crate::core::plan::{CommitPlan, Loaded};

/// One partition's place to store, with at most one transaction open.
///
/// A claim belongs to one connection. Whatever fails rolls back; where the connection is lost, or
/// the end of a COMMIT is unknown, the claim is gone too, and the next load answers
/// [`Failure::Unclaimed`]. Otherwise a retry could apply what was already committed: only a new
/// claim waits until the old transaction has ended.
pub trait Store: Send + Sync {
    /// Claims the partition under a new epoch; waits for the transaction of an older owner.
    fn claim(
        &mut self,
        partition: PartitionId,
    ) -> impl Future<Output = Result<Epoch, Failure>> + Send;

    /// Opens a transaction, checks the fence, locks the rows, and reads what is wanted.
    fn load(
        &mut self,
        partition: PartitionId,
        wanted: &Wanted,
    ) -> impl Future<Output = Result<Loaded, Failure>> + Send;

    /// Stores the plan in that transaction, and commits it: all or nothing.
    fn commit(
        &mut self,
        partition: PartitionId,
        items: &[Item],
        plan: &CommitPlan,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}
