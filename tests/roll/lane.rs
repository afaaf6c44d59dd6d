//! What a lane does with the item at its head: `worker::turn`, `worker::marker`, and what
//! `core::plan` makes of a standing.

use std::time::Duration;

use keylane::core::roll::{MARKER_WAIT_MAX, Passing, Source, Standing};

use super::actions::Action;
use super::mutation::Mutation;
use super::turns::{Line, State};
use super::world::{FIRST_MARKER, QUEUES, Setting, World, bit, number, partition, write_bit};

/// What is wrong with a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

/// How a lane serves its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Serving {
    /// It is committed and acknowledged.
    Wholly,
    /// The worker dies between the commit and the acknowledgement.
    ThenDies,
    /// It has stood before it for too long.
    Impatiently,
}

impl World {
    /// A lane's standing, as its fence reads it.
    pub(crate) fn standing(&self, setting: &Setting, queue: usize) -> Standing {
        let partition = partition(queue);
        let standing = self.line.standing(partition);
        let source = Source::of(partition);
        let had = self.line.turns.iter().any(|row| Some(row.turn.source) == source);
        match (setting.mutation, standing) {
            (Some(Mutation::NextAtOnce), Standing::NotYet) if had => Standing::Mine,
            (Some(Mutation::VoidConsumed), Standing::Over) if !had => Standing::Mine,
            (_, standing) => standing,
        }
    }

    /// Whether some worker's lane has something to do here.
    pub(crate) fn is_served(&self, setting: &Setting, queue: usize) -> bool {
        let served = self.broker.there & bit(queue) > 0
            && self.broker.hangs & bit(queue) == 0
            && self.broker.head(queue).is_some();
        if !served {
            return false;
        }
        let id = partition(queue);
        let source = Source::of(id).expect("nothing is dead here");
        let state = self.line.generation(id.generation).map(|generation| generation.state);
        let open = matches!(state, None | Some(State::Open));
        self.line.is_consumed(source) || (setting.is(Mutation::NextAtOnce) && open)
    }

    /// Serves the head of a queue in one transaction. False: it waits.
    pub(crate) fn serve(
        &mut self,
        setting: &Setting,
        queue: usize,
        standing: Standing,
        serving: Serving,
    ) -> Result<bool, Violation> {
        let Some(item) = self.broker.head(queue) else { return Ok(false) };
        let settles = if item >= FIRST_MARKER {
            passes(setting, &mut self.line, (queue, item), standing, serving)
        } else {
            serving != Serving::Impatiently && self.writes_down(setting, queue, item, standing)?
        };
        if settles && serving != Serving::ThenDies {
            self.broker.pop(queue);
        }
        Ok(settles)
    }

    /// What is known is acknowledged, what is new is applied by those whose turn it is.
    fn writes_down(
        &mut self,
        setting: &Setting,
        queue: usize,
        write: u8,
        standing: Standing,
    ) -> Result<bool, Violation> {
        if self.is_applied(write) && !setting.is(Mutation::NoLedger) {
            return Ok(true);
        }
        match standing {
            Standing::Over if setting.is(Mutation::AckBehindMarker) => return Ok(true),
            Standing::Over | Standing::NotYet => return Ok(false),
            Standing::Mine => {}
        }
        let source = Source::of(partition(queue));
        if self.line.first() != source {
            return wrong(format!(
                "{source:?} applies, and it is the turn of {:?}",
                self.line.first()
            ));
        }
        if self.is_applied(write) {
            return wrong(format!("write {write} is applied twice"));
        }
        let promised = |other: u8| {
            let sent = self.writes[usize::from(other)];
            setting.key(other) == setting.key(write) && !sent.given_up
        };
        let given_up = self.writes[usize::from(write)].given_up;
        for later in setting.writes().filter(|later| *later > write && !given_up) {
            if promised(later) && self.is_applied(later) {
                return wrong(format!("write {write} is applied after write {later}"));
            }
        }
        self.applied |= write_bit(write);
        Ok(true)
    }

    /// A lane that acknowledges a copy, if there is one.
    pub(crate) fn settles_a_copy(&self, setting: &Setting) -> Option<Action> {
        let known = |queue: &usize| {
            let head = self.broker.head(*queue).filter(|item| *item < FIRST_MARKER);
            self.lanes[*queue] == 0
                && head.is_some_and(|write| self.is_applied(write))
                && self.is_served(setting, *queue)
        };
        let reduces = !setting.slow_lanes && !setting.is(Mutation::NoLedger);
        let queue = (0..QUEUES).filter(|_| reduces).find(known)?;
        Some(Action::Serve(queue, Serving::Wholly))
    }

    /// Where nothing can happen any more, everything must be done.
    pub(crate) fn rests(&self, setting: &Setting) -> Result<(), Violation> {
        for write in setting.writes() {
            let sent = self.writes[usize::from(write)];
            if !self.is_applied(write) && !sent.given_up {
                return wrong(format!("write {write} is never applied: {sent:?}"));
            }
        }
        for queue in (0..QUEUES).filter(|queue| self.broker.head(*queue).is_some()) {
            let items: Vec<u8> = self.broker.items(queue).collect();
            // What its sender gave up may wait for ever where its copy was lost.
            let given_up =
                |item: &u8| self.writes.get(usize::from(*item)).is_some_and(|it| it.given_up);
            if items.first().is_some_and(given_up) {
                continue;
            }
            return wrong(format!("{} is never drained: {items:?}", partition(queue)));
        }
        if self.is_settled() { Ok(()) } else { wrong("no ring stands in the end".to_owned()) }
    }

    /// Nothing that is still promised goes with the queues of a ring.
    pub(crate) fn loses(&self, queue: usize) -> Option<u8> {
        let waits = |write: &u8| *write < FIRST_MARKER && !self.is_applied(*write);
        let elsewhere = |write: u8| {
            let others = (0..QUEUES).filter(|other| *other != queue);
            let queued = |other: usize| self.broker.items(other).any(|item| item == write);
            let under_way = self.writes[usize::from(write)].under_way & !bit(queue) > 0;
            under_way || others.into_iter().any(queued)
        };
        self.broker.items(queue).filter(waits).find(|write| !elsewhere(*write))
    }
}

fn wrong<T>(what: String) -> Result<T, Violation> {
    Err(Violation(what))
}

/// What comes of a marker at the head of a lane.
pub(crate) fn passes(
    setting: &Setting,
    line: &mut Line,
    (queue, marker): (usize, u8),
    standing: Standing,
    serving: Serving,
) -> bool {
    let waited = if serving == Serving::Impatiently { MARKER_WAIT_MAX } else { Duration::ZERO };
    let (id, nonce) = (partition(queue), number(marker));
    let turn = line.turns.iter().find(|row| {
        Some(row.turn.source) == Source::of(id) && !row.closed && row.turn.marker.is_some()
    });
    let turn = turn.map(|row| row.turn);
    let (ours, meant) = (turn.is_some(), turn.is_some_and(|it| it.marker == Some(nonce)));
    let ended = turn.is_some_and(|it| it.ended);
    let closes = match setting.mutation {
        Some(Mutation::AnyMarker) => ours && standing == Standing::Mine,
        Some(Mutation::CloseWhileNotYet) => meant && ended && standing == Standing::NotYet,
        _ => false,
    };
    if let Some(turn) = turn.filter(|_| closes) {
        line.close(id, turn.number);
        return true;
    }
    let patient = setting.is(Mutation::NoWithdraw) || setting.is(Mutation::WithdrawInSecret);
    let told = if patient { Duration::ZERO } else { waited };
    match line.pass(id, nonce, standing, told) {
        Passing::Close | Passing::Withdraw | Passing::Skip => true,
        Passing::Wait => setting.is(Mutation::WithdrawInSecret) && !waited.is_zero() && !ended,
    }
}
