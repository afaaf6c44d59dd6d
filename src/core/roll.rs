//! The order in which queues are consumed while routing changes, and how it is changed.
//!
//! Owns: whose turn it is, what ends a turn, when a roll is due and which steps it takes.
//! Never: does any of it. The shell carries the steps out, the model in `tests/roll` tries every
//! order of them.
//!
//! A *turn* is a source of writes: a ring with its partitions, or held. Turns stand in a line. The
//! last one receives what senders publish; the first that is not closed is consumed. A *handover*
//! adds a turn: the next source is bound beside the last one, so that for a while both get every
//! write; then a marker goes into each queue of the last one, and one transaction says that the
//! markers count. What is before a marker is applied from there, and all that is behind it has its
//! copy in the next source, where the ledger knows what was applied before.

use std::time::Duration;

use uuid::Uuid;

use super::partition::PartitionId;

/// How long a lane stands before a marker that nobody has said to count. Then it takes the marker
/// back, so that a roll that was given up holds nothing up.
pub const MARKER_WAIT_MAX: Duration = Duration::from_secs(20);

/// Where writes wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The queue of what is published while no ring stands.
    Held,
    /// The partitions of a generation.
    Ring(i32),
}

impl Source {
    /// The source that a queue belongs to; none for what the broker gave up.
    pub const fn of(partition: PartitionId) -> Option<Self> {
        match partition {
            PartitionId::DEAD => None,
            PartitionId::HELD => Some(Self::Held),
            PartitionId { generation, .. } => Some(Self::Ring(generation)),
        }
    }

    /// The number under which the database knows it: 0 is held.
    pub const fn generation(self) -> i32 {
        match self {
            Self::Held => 0,
            Self::Ring(generation) => generation,
        }
    }

    /// The source of that number.
    pub const fn from_generation(generation: i32) -> Self {
        if generation == 0 { Self::Held } else { Self::Ring(generation) }
    }
}

/// A source's place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn {
    /// From 1, without gaps.
    pub number: i64,
    pub source: Source,
    /// Which markers are, or will be, its end.
    pub marker: Option<Uuid>,
    /// These markers count: a later turn stands behind it.
    pub ended: bool,
}

/// Whether a lane may apply writes that nobody has applied before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Standing {
    /// It is its turn.
    #[default]
    Mine,
    /// Something before it is not closed. What is known is settled, all else waits.
    NotYet,
    /// Its turn is over, or it never gets one: everything here has its copy elsewhere.
    Over,
}

impl Standing {
    /// The standing of a lane.
    ///
    /// `first` is the source of the first turn that is not closed, `closed` says that this very
    /// partition is, `waits` that some turn of its source is not.
    pub fn of(partition: PartitionId, first: Option<Source>, closed: bool, waits: bool) -> Self {
        match Source::of(partition) {
            None => Self::Mine,
            Some(_) if closed => Self::Over,
            source if source == first => Self::Mine,
            // Held gets another turn some day.
            Some(Source::Held) => Self::NotYet,
            Some(Source::Ring(_)) if waits => Self::NotYet,
            Some(Source::Ring(_)) => Self::Over,
        }
    }
}

/// What a lane does about a marker at its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// It is the end of the turn: close.
    Close,
    /// Stand before it: nobody knows yet whether it counts, or the turn has not come.
    Wait,
    /// Take it back, so that it can never count, and go on.
    Withdraw,
    /// It means nothing: settle it and go on.
    Skip,
}

/// Judges the marker `nonce`. `turn` is the first turn of the lane's source that is not closed;
/// `waited` is how long the lane has stood before it.
pub fn pass(nonce: Uuid, turn: Option<&Turn>, standing: Standing, waited: Duration) -> Passing {
    match turn {
        Some(turn) if turn.marker == Some(nonce) && standing != Standing::Over => match standing {
            Standing::Mine if turn.ended => Passing::Close,
            _ if turn.ended || waited < MARKER_WAIT_MAX => Passing::Wait,
            _ => Passing::Withdraw,
        },
        Some(_) | None => Passing::Skip,
    }
}

/// What the broker says of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ring {
    /// It is there, with all its queues.
    Whole,
    /// Something of it is missing, or somebody deleted it: writes may still be under way.
    Broken,
    /// The broker has restarted without it: nothing is under way any more.
    Gone,
    /// Neither it nor any of its queues, which a restart leaves. This is a node whose cluster has
    /// split and that learns nothing new, or another broker, or one that was set up anew.
    Unknown,
}

/// What decides whether a roll is due.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The last turn of the line; none: there never was one.
    pub last: Option<Turn>,
    /// All turns before the last are closed.
    pub steady: bool,
    /// The ring of the last turn, if it is one.
    pub ring: Ring,
    /// Its partitions.
    pub partitions: i32,
    /// As many partitions as somebody wants.
    pub wanted: i32,
    /// Writes that nobody has applied wait in held although it is a ring's turn.
    pub strays: bool,
    /// An operator has said that the ring is gone for good, with all that was in it.
    pub abandoned: bool,
}

/// Why a roll begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// There was none before.
    FirstStart,
    /// The ring, or a queue of it, is not there any more.
    RingLost,
    /// Writes go past the ring.
    Strays,
    /// Held has the turn, and a ring is to take over.
    Held,
    /// Another number of partitions is wanted.
    Resize,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::FirstStart, Self::RingLost, Self::Strays, Self::Held, Self::Resize];

    /// Its name in metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::FirstStart => "first_start",
            Self::RingLost => "ring_lost",
            Self::Strays => "strays",
            Self::Held => "held",
            Self::Resize => "resize",
        }
    }
}

/// The turn that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Held.
    Held,
    /// A new ring of so many partitions.
    Ring(i32),
}

/// From the last turn to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handover {
    pub cause: Cause,
    /// The last turn, which ends.
    pub from: Option<Turn>,
    pub next: Next,
    /// Writes may be under way to the source of the last turn.
    pub flows: bool,
}

impl View {
    /// The handover that is due, if one is.
    ///
    /// A ring never follows a ring: nobody can know that nothing went past the last one into held,
    /// and behind held it does no harm.
    pub fn due(&self) -> Option<Handover> {
        let flows = !matches!(self.ring, Ring::Gone | Ring::Unknown);
        let handover = |cause, next| Handover { cause, from: self.last, next, flows };
        let ring = Next::Ring(self.wanted);
        let Some(last) = self.last else {
            return Some(handover(Cause::FirstStart, Next::Held));
        };
        match (last.source, self.ring) {
            (Source::Held, _) => Some(Handover { flows: true, ..handover(Cause::Held, ring) }),
            // Its queues and what was confirmed may be in the other part.
            (Source::Ring(_), Ring::Unknown) if !self.abandoned => None,
            (Source::Ring(_), Ring::Gone | Ring::Broken | Ring::Unknown) => {
                Some(handover(Cause::RingLost, Next::Held))
            }
            (Source::Ring(_), Ring::Whole) if self.strays && self.steady => {
                Some(handover(Cause::Strays, Next::Held))
            }
            (Source::Ring(_), Ring::Whole) if self.wanted != self.partitions => {
                Some(handover(Cause::Resize, Next::Held))
            }
            (Source::Ring(_), Ring::Whole) => None,
        }
    }
}

/// One step of a handover. Each is one thing that is done to the broker or to the database, never
/// to both; whoever dies between two of them leaves nothing that the next one could not begin
/// anew, because nothing counts before [`Step::End`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Database: take a number that was never used, for the next ring; what others planned and
    /// did not bring to an end is given up.
    Plan,
    /// Broker: declare that ring and its queues.
    Declare,
    /// Database: note that it is declared.
    Declared,
    /// Let the broker write down what it has declared.
    Rest,
    /// Broker: let writes flow to the next source too.
    Bind,
    /// Wait until everything that was routed before has arrived.
    Settle,
    /// Database: note which markers are meant.
    Intend,
    /// Broker: put them into the queues of the last turn, each confirmed in time.
    Mark,
    /// Database: they count, and the next turn stands in the line. The one point of no return.
    End,
    /// Broker: let writes flow to the last source no more.
    Unbind,
}

impl Handover {
    /// Its steps, in order.
    pub const fn steps(&self) -> &'static [Step] {
        use Step::{Bind, Declare, Declared, End, Intend, Mark, Plan, Rest, Settle, Unbind};
        match (self.from, self.next, self.flows) {
            (None, _, _) => &[Rest, Bind, End],
            (Some(_), Next::Held, false) => &[Bind, Intend, Mark, End, Unbind],
            (Some(_), Next::Held, true) => &[Bind, Settle, Intend, Mark, End, Unbind],
            (Some(_), Next::Ring(_), _) => {
                &[Plan, Declare, Declared, Rest, Bind, Settle, Intend, Mark, End, Unbind]
            }
        }
    }

    /// From where it goes on when its markers were not confirmed in time: with others, after the
    /// same wait. What was planned and bound before stays good.
    pub fn again(&self) -> usize {
        let waits = |step: &Step| matches!(step, Step::Settle | Step::Intend);
        self.steps().iter().position(waits).unwrap_or_default()
    }
}
