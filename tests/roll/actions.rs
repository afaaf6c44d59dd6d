//! Everything that can happen next.

use keylane::core::roll::{Source, Standing, Step};

use super::broker::queues;
use super::lane::{Serving, Violation, passes};
use super::mutation::Mutation;
use super::roller::Outcome;
use super::world::{Budget, FIRST_MARKER, QUEUES, Setting, World, bit};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Publish(u8),
    /// A write, or a marker, reaches a queue.
    Land(u8, usize),
    Wakes(usize),
    Serve(usize, Serving),
    /// A lane opens a transaction; it is served by what this has read.
    Open(usize),
    Finish(usize),
    Begin(usize),
    Step(usize, Step),
    UnbindOld,
    Tidy,
    /// What is left of a handover is forgotten with the worker.
    Crash(usize),
    /// The confirm of a marker came too late, or never: it may still arrive.
    TooLate(usize),
    Restart {
        loses: bool,
    },
    /// The workers connect anew: they cannot tell a ring that was deleted from one that a restart
    /// has taken.
    Reconnect,
    PersonUnbinds,
    PersonDeletes,
    PersonDeletesQueue(usize),
    Resize,
    Hangs(usize),
}

/// Standings, as an open transaction remembers them.
const STANDINGS: [Standing; 3] = [Standing::Mine, Standing::NotYet, Standing::Over];

/// When nothing goes wrong any more: as many rolls as are due.
pub(crate) const CALM: Budget = Budget {
    rolls: u8::MAX,
    crashes: 0,
    restarts: 0,
    persons: 0,
    queues: 0,
    late: 0,
    withdrawals: u8::MAX,
    resizes: 0,
    tidies: u8::MAX,
    hangs: 0,
};

impl World {
    /// What can happen. The first is what happens where nothing goes wrong.
    pub(crate) fn actions(&self, setting: &Setting) -> Vec<Action> {
        let mut actions = Vec::with_capacity(16);
        self.arrivals(setting, &mut actions);
        self.lanes(setting, &mut actions);
        for roller in 0..setting.rollers {
            if self.rollers[roller].is_none() {
                if self.budget.rolls > 0 && self.due(setting).is_some() {
                    actions.push(Action::Begin(roller));
                }
            } else if let Some(step) = self.next_step(setting, roller)
                && self.can(setting, roller)
            {
                actions.push(Action::Step(roller, step));
            }
        }
        if self.budget.tidies > 0 && self.has_old(setting) {
            actions.push(Action::UnbindOld);
        }
        let publishable = setting.writes().filter(|write| self.may_publish(setting, *write));
        actions.extend(publishable.map(Action::Publish));
        self.slow(setting, &mut actions);
        self.faults(setting, &mut actions);
        actions
    }

    fn arrivals(&self, setting: &Setting, actions: &mut Vec<Action>) {
        let of = |set: u16| (0..QUEUES).filter(move |queue| set & bit(*queue) > 0);
        actions.extend(of(self.broker.hangs).map(Action::Wakes));
        for write in setting.writes() {
            let land = |queue| Action::Land(write, queue);
            actions.extend(of(self.lands(setting, write)).map(land));
        }
        for (marker, to) in (0..).zip(self.markers) {
            actions.extend(of(to & !self.broker.hangs).map(|queue| Action::Land(marker, queue)));
        }
    }

    fn lanes(&self, setting: &Setting, actions: &mut Vec<Action>) {
        for queue in 0..QUEUES {
            if !self.is_served(setting, queue) {
                continue;
            }
            if !setting.slow_lanes {
                let standing = self.standing(setting, queue);
                if self.would(setting, queue, standing, Serving::Wholly) {
                    actions.push(Action::Serve(queue, Serving::Wholly));
                    if self.budget.crashes > 0 {
                        actions.push(Action::Serve(queue, Serving::ThenDies));
                    }
                }
                continue;
            }
            let standing = self.lanes[queue];
            if standing > 0 {
                actions.push(Action::Finish(queue));
            } else if self.would(setting, queue, self.standing(setting, queue), Serving::Wholly) {
                actions.push(Action::Open(queue));
            }
        }
    }

    /// What takes long: it comes when nothing else is left.
    fn slow(&self, setting: &Setting, actions: &mut Vec<Action>) {
        for queue in (0..QUEUES).filter(|_| self.budget.withdrawals > 0) {
            let standing = self.standing(setting, queue);
            if self.is_served(setting, queue)
                && !self.would(setting, queue, standing, Serving::Wholly)
                && self.would(setting, queue, standing, Serving::Impatiently)
            {
                actions.push(Action::Serve(queue, Serving::Impatiently));
            }
        }
        if self.budget.tidies > 0 && setting.budget.tidies > 0 && self.has_leaving(setting) {
            actions.push(Action::Tidy);
        }
    }

    fn faults(&self, setting: &Setting, actions: &mut Vec<Action>) {
        for roller in 0..setting.rollers {
            let Some(it) = self.rollers[roller] else { continue };
            if self.budget.crashes > 0 {
                actions.push(Action::Crash(roller));
            }
            if self.budget.late > 0 && it.put && self.markers[usize::from(it.marker)] > 0 {
                actions.push(Action::TooLate(roller));
            }
        }
        let under_way = self.under_way() > 0 || self.markers.iter().any(|to| *to > 0);
        if self.budget.restarts > 0 {
            // Else what is under way arrives before: that is another schedule.
            if !under_way || !setting.pipelined {
                actions.push(Action::Restart { loses: under_way });
            }
        }
        if let Some(Source::Ring(generation)) = self.line.last().map(|turn| turn.source) {
            if self.budget.persons > 0 && self.is_bound(Source::Ring(generation)) {
                actions.push(Action::PersonUnbinds);
            }
            if self.budget.persons > 0 && self.is_there(generation) {
                actions.push(Action::PersonDeletes);
            }
            let source = Source::Ring(generation);
            for queue in queues(source, self.line.partitions(source)) {
                let under_way = self.writes.iter().any(|sent| sent.under_way & bit(queue) > 0);
                let marked = self.markers.iter().any(|to| to & bit(queue) > 0);
                let empty = self.broker.head(queue).is_none() && !under_way && !marked;
                if self.budget.queues > 0 && empty && self.broker.there & bit(queue) > 0 {
                    actions.push(Action::PersonDeletesQueue(queue));
                }
                if self.budget.hangs > 0 {
                    actions.push(Action::Hangs(queue));
                }
            }
        }
        if self.budget.crashes > 0 && self.broker.deleted > 0 {
            actions.push(Action::Reconnect);
        }
        if self.budget.resizes > 0 {
            actions.push(Action::Resize);
        }
    }

    /// Whether a lane would get on.
    fn would(&self, setting: &Setting, queue: usize, standing: Standing, how: Serving) -> bool {
        let Some(item) = self.broker.head(queue) else { return false };
        if item < FIRST_MARKER && how == Serving::Wholly {
            let over = setting.is(Mutation::AckBehindMarker) && standing == Standing::Over;
            return standing == Standing::Mine || over || self.is_applied(item);
        }
        if item < FIRST_MARKER {
            return false;
        }
        let mut line = self.line.clone();
        passes(setting, &mut line, (queue, item), standing, how)
    }

    /// Whether the next step of a roller can come to an end.
    fn can(&self, setting: &Setting, roller: usize) -> bool {
        let Some(it) = self.rollers[roller] else { return false };
        match self.next_step(setting, roller) {
            Some(Step::Settle) => it.waits_for == 0 || self.hangs(it.waits_for),
            Some(Step::End) if it.gone > 0 => self.clone().step(setting, roller) != Outcome::NotYet,
            Some(Step::Mark) => !it.put || self.markers[usize::from(it.marker)] == 0,
            _ => true,
        }
    }

    /// Lets it happen.
    pub(crate) fn happen(&mut self, setting: &Setting, action: Action) -> Result<(), Violation> {
        let budget = &mut self.budget;
        match action {
            Action::Publish(write) => self.publish(setting, write),
            Action::Land(item, queue) if item < FIRST_MARKER => self.land(item, queue),
            Action::Land(marker, queue) => self.land_marker(marker, queue),
            Action::Wakes(queue) => self.wake(queue),
            Action::Serve(queue, how) => {
                budget.crashes -= u8::from(how == Serving::ThenDies);
                budget.withdrawals -= u8::from(how == Serving::Impatiently);
                let standing = self.standing(setting, queue);
                self.serve(setting, queue, standing, how)?;
            }
            Action::Open(queue) => {
                let standing = self.standing(setting, queue);
                let at = STANDINGS.iter().position(|it| *it == standing).expect("one of them");
                self.lanes[queue] = u8::try_from(at).expect("three") + 1;
            }
            Action::Finish(queue) => {
                let standing = STANDINGS[usize::from(std::mem::take(&mut self.lanes[queue])) - 1];
                self.serve(setting, queue, standing, Serving::Wholly)?;
            }
            Action::Begin(roller) => {
                budget.rolls -= 1;
                let handover = self.due(setting).expect("it was due");
                self.begin(roller, handover);
            }
            Action::Step(roller, _) => {
                self.step(setting, roller);
                // Nobody else can see whether a ring is planned or declared, but another roller.
                while setting.rollers == 1
                    && matches!(
                        self.next_step(setting, roller),
                        Some(Step::Declare | Step::Declared | Step::Rest)
                    )
                    && self.rollers[roller].is_some_and(|it| it.connected)
                {
                    self.step(setting, roller);
                }
            }
            Action::UnbindOld => self.unbind_old(setting),
            Action::Tidy => return self.tidy_with_care(setting),
            fault => self.befall(setting, fault),
        }
        Ok(())
    }

    /// Lets something go wrong.
    fn befall(&mut self, setting: &Setting, fault: Action) {
        let budget = &mut self.budget;
        match fault {
            Action::Crash(roller) => {
                budget.crashes -= 1;
                self.rollers[roller] = None;
            }
            Action::TooLate(roller) => {
                budget.late -= 1;
                self.mark_again(roller);
            }
            Action::Restart { loses } => {
                budget.restarts -= 1;
                self.restart(setting, loses);
            }
            Action::PersonUnbinds | Action::PersonDeletes => {
                budget.persons -= 1;
                let last = self.line.last().expect("there is a ring").source;
                match fault {
                    Action::PersonUnbinds => self.unbind(setting, last, 0),
                    _ => self.delete_ring(last.generation()),
                }
            }
            Action::PersonDeletesQueue(queue) => {
                budget.queues -= 1;
                self.delete_queue(queue);
            }
            Action::Reconnect => {
                budget.crashes -= 1;
                self.broker.deleted = 0;
                self.rollers = [None, None];
            }
            Action::Resize => {
                budget.resizes -= 1;
                self.wanted = 3 - self.wanted;
            }
            Action::Hangs(queue) => {
                budget.hangs -= 1;
                self.broker.hangs |= bit(queue);
            }
            other => unreachable!("{other:?} is no fault"),
        }
    }

    fn tidy_with_care(&mut self, setting: &Setting) -> Result<(), Violation> {
        self.budget.tidies -= 1;
        let before = self.clone();
        self.tidy(setting);
        let gone = before.broker.there & !self.broker.there;
        let lost = (0..QUEUES).filter(|queue| gone & bit(*queue) > 0);
        match { lost }.find_map(|queue| before.loses(queue)) {
            Some(write) => Err(Violation(format!("write {write} is deleted with its ring"))),
            None => Ok(()),
        }
    }
}
