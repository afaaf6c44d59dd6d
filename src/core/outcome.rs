//! What became of a write, and the names under which everybody speaks of it.
//!
//! Owns: the closed set of outcomes, effects and reasons, and their labels.
//! Never: decides which one a write gets (that is `fold` and `write`).

use std::fmt;

/// Declares an enum whose variants have one text label each, and reads the label back.
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of WIRE.md.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in outcomes, tables, logs and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// Reads a label back, as it stands in the ledger.
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.label()) }
        }
    };
}

pub(crate) use labelled;

labelled! {
    /// What an applied write did to its row.
    Effect {
        /// The row was absent and is there now.
        Created => "created",
        /// The row was there and has a new version.
        Updated => "updated",
        /// The row was there and is gone, or marked as deleted.
        Deleted => "deleted",
        /// A delete found no row.
        Unchanged => "unchanged",
    }
}

labelled! {
    /// Which condition of the sender did not hold.
    Unmet {
        /// `if-version` names another version than the row's.
        VersionMismatch => "version_mismatch",
        /// `occurred-at` is older than what the row has seen.
        OlderThanRow => "older_than_row",
        /// `create` found a row.
        AlreadyExists => "already_exists",
        /// `update` found no row.
        NotFound => "not_found",
    }
}

labelled! {
    /// Why a write can never be applied as it is.
    Reason {
        /// The body is no JSON object, or names a member twice.
        MalformedBody => "malformed_body",
        /// The content type is not `application/json`.
        UnsupportedMediaType => "unsupported_media_type",
        /// `message_id` is missing, empty or longer than 200 bytes.
        MissingWriteId => "missing_write_id",
        /// `type` is missing or not `<entity>.<change>`.
        MissingType => "missing_type",
        /// No such entity is configured.
        UnknownEntity => "unknown_entity",
        /// No such change exists.
        UnknownChange => "unknown_change",
        /// The routing key is no canonical business key of the entity.
        KeyInvalid => "key_invalid",
        /// The body names another key than the routing key.
        KeyMismatch => "key_mismatch",
        /// The body is larger than `batch.bytes_max` allows.
        BodyTooLarge => "body_too_large",
        /// The body names a column that cannot be written.
        UnknownColumn => "unknown_column",
        /// A value does not fit its column.
        TypeMismatch => "type_mismatch",
        /// The table's own rules refuse the row.
        ConstraintViolation => "constraint_violation",
        /// A guard is used for which the entity has no column.
        UnsupportedGuard => "unsupported_guard",
        /// The write id was used before with other content.
        WriteIdReused => "write_id_reused",
        /// The message was tried too often without an end.
        RedeliveredTooOften => "redelivered_too_often",
        /// It rested, and an operator decided that it is not to be applied.
        Discarded => "discarded",
    }
}

impl Reason {
    /// Whether later writes of the key may depend on the one that was rejected. One broken sender
    /// must not stop everybody's key, so what says nothing about the row does not count.
    pub const fn may_stop_a_key(self) -> bool {
        !matches!(
            self,
            Self::WriteIdReused
                | Self::MissingWriteId
                | Self::MissingType
                | Self::UnknownEntity
                | Self::KeyInvalid
                | Self::KeyMismatch
        )
    }
}

labelled! {
    /// Why a write rests: not final.
    Rest {
        /// A dead letter of its key stands before it.
        BehindDeadLetter => "behind_dead_letter",
        /// A write of its key that waits stands before it.
        BehindWaitingWrite => "behind_waiting_write",
        /// An operator paused its key.
        Paused => "paused",
        /// The row that its foreign key refers to is not there yet.
        MissingParent => "missing_parent",
        /// Somebody else holds its row.
        RowLocked => "row_locked",
    }
}

impl Rest {
    /// Whether its lane tries again by itself; otherwise somebody has to decide.
    pub const fn passes(self) -> bool {
        matches!(self, Self::BehindWaitingWrite | Self::MissingParent | Self::RowLocked)
    }
}

/// Why a write is rejected, in words for its sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The stable name.
    pub reason: Reason,
    /// One sentence that says what is wrong and what would be right.
    pub detail: String,
    /// JSON pointer (RFC 6901) to the member of the body to blame.
    pub pointer: Option<String>,
}

impl Rejection {
    /// A rejection that no single member of the body is to blame for.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), pointer: None }
    }

    /// The same, with the member to blame.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }
}

/// What became of a write. Decided once; everybody else reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Applied {
        /// What it did to the row.
        effect: Effect,
        /// The row's version afterwards, where the entity has one and the row is there.
        version: Option<i64>,
    },
    /// The sender's own condition did not hold; final.
    PreconditionFailed {
        /// Which one.
        unmet: Unmet,
        /// The row's version, where the entity has one and the row is there.
        version: Option<i64>,
    },
    /// Can never be applied as it is; becomes a dead letter.
    Rejected(Rejection),
    /// Rests among the dead letters until the key goes on; not final.
    Parked(Rest),
}

impl Outcome {
    /// The labels under which `keylane_writes_total` counts outcomes.
    pub const LABELS: [&'static str; 4] = ["applied", "precondition_failed", "rejected", "parked"];

    /// The name in outcomes, tables, logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::PreconditionFailed { .. } => "precondition_failed",
            Self::Rejected(_) => "rejected",
            Self::Parked(_) => "parked",
        }
    }

    /// Whether a replay of the dead letter cannot change it any more.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Applied { .. } | Self::PreconditionFailed { .. })
    }

    /// The effect's label, of an applied write.
    pub const fn effect(&self) -> Option<&'static str> {
        match self {
            Self::Applied { effect, .. } => Some(effect.label()),
            Self::PreconditionFailed { .. } | Self::Rejected(_) | Self::Parked(_) => None,
        }
    }

    /// The reason's label, of every other.
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Applied { .. } => None,
            Self::PreconditionFailed { unmet, .. } => Some(unmet.label()),
            Self::Rejected(rejection) => Some(rejection.reason.label()),
            Self::Parked(rest) => Some(rest.label()),
        }
    }

    /// What is wrong, in words.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Applied { .. } | Self::PreconditionFailed { .. } | Self::Parked(_) => None,
            Self::Rejected(rejection) => Some(&rejection.detail),
        }
    }

    /// JSON pointer to the member of the body to blame.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Applied { .. } | Self::PreconditionFailed { .. } | Self::Parked(_) => None,
            Self::Rejected(rejection) => rejection.pointer.as_deref(),
        }
    }

    /// The row's version.
    pub const fn version(&self) -> Option<i64> {
        match self {
            Self::Applied { version, .. } | Self::PreconditionFailed { version, .. } => *version,
            Self::Rejected(_) | Self::Parked(_) => None,
        }
    }
}
