//! A few first: the stages of a replay that may show that what was mended is not.

use std::collections::BTreeSet;
use std::str::FromStr;

/// How many letters are requested before each look at what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Canary {
    sizes: Vec<u64>,
}

impl FromStr for Canary {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "must be sizes of stages, each above 0: 1,10,100";
        let sizes = text.split(',').map(|size| match size.trim().parse() {
            Ok(size) if size > 0 => Ok(size),
            Ok(_) | Err(_) => Err(FORM),
        });
        Ok(Self { sizes: sizes.collect::<Result<_, _>>()? })
    }
}

/// A replay in the middle of its stages.
#[derive(Debug, Clone)]
pub(super) struct Stages {
    /// How many letters are requested by the end of each stage that is not over.
    ends: std::collections::VecDeque<u64>,
    requested: u64,
    /// What the frozen set died of; `None`: nobody asked for stages.
    expected: Option<BTreeSet<String>>,
    /// A reason that the set did not have.
    new_reason: Option<String>,
}

impl Stages {
    pub(super) fn new(canary: &Canary, reasons: BTreeSet<String>) -> Self {
        let mut end = 0_u64;
        let ends = canary.sizes.iter().map(|size| {
            end = end.saturating_add(*size);
            end
        });
        let ends = ends.collect();
        let expected = (!canary.sizes.is_empty()).then_some(reasons);
        Self { ends, requested: 0, expected, new_reason: None }
    }

    /// How many more may be requested, while `in_flight` have no result yet.
    pub(super) fn allowed(&mut self, in_flight: u64) -> u64 {
        if self.new_reason.is_some() {
            return 0;
        }
        if in_flight == 0 && self.ends.front().is_some_and(|end| *end <= self.requested) {
            self.ends.pop_front();
        }
        self.ends.front().map_or(u64::MAX, |end| end.saturating_sub(self.requested))
    }

    /// These were requested.
    pub(super) const fn requested(&mut self, letters: u64) {
        self.requested = self.requested.saturating_add(letters);
    }

    /// A letter died again of `reason`.
    pub(super) fn died(&mut self, reason: &str) {
        let expected = self.expected.as_ref();
        if self.new_reason.is_none() && expected.is_some_and(|known| !known.contains(reason)) {
            self.new_reason = Some(reason.to_owned());
        }
    }

    /// Why no more is requested.
    pub(super) fn new_reason(&self) -> Option<&str> {
        self.new_reason.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(canary: &str) -> Stages {
        Stages::new(&canary.parse().unwrap(), ["type_mismatch".to_owned()].into())
    }

    #[test]
    fn a_stage_ends_when_each_of_its_letters_has_a_result() {
        let mut stages = stages("1,10");
        assert_eq!(stages.allowed(0), 1);
        stages.requested(1);
        assert_eq!(stages.allowed(1), 0);
        assert_eq!(stages.allowed(0), 10);
        stages.requested(4);
        assert_eq!(stages.allowed(4), 6);
        stages.requested(6);
        assert_eq!(stages.allowed(3), 0);
        assert_eq!(stages.allowed(0), u64::MAX);
    }

    #[test]
    fn a_reason_that_the_set_did_not_have_ends_the_requests() {
        let mut stages = stages("1");
        stages.requested(1);
        stages.died("type_mismatch");
        assert_eq!((stages.allowed(0), stages.new_reason()), (u64::MAX, None));
        stages.died("constraint_violation");
        assert_eq!((stages.allowed(0), stages.new_reason()), (0, Some("constraint_violation")));
    }

    #[test]
    fn without_stages_everything_is_requested_and_no_reason_stops_it() {
        let mut stages = Stages::new(&Canary::default(), BTreeSet::new());
        stages.died("constraint_violation");
        assert_eq!(stages.allowed(0), u64::MAX);
    }

    #[test]
    fn sizes_are_numbers_above_nothing() {
        for text in ["", "0", "1,0", "a", "1,,2", "-1", "1;2"] {
            assert!(text.parse::<Canary>().is_err(), "{text}");
        }
        assert_eq!("1, 10".parse(), Ok(Canary { sizes: vec![1, 10] }));
    }
}
