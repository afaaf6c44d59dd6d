//! Every code that a problem can have, and its status.
//!
//! Owns: that the list is closed: a problem cannot be made without one of these, and
//! docs/PROBLEMS.md has a section for each.

use std::fmt;

use axum::http::StatusCode;

use crate::core::outcome::{Reason, Unmet, labelled};

labelled! {
    /// What only HTTP knows.
    Own {
        /// No token, or one that is not valid.
        Unauthorized => "unauthorized",
        /// The token lacks the scope, or no tokens are configured and the caller is remote.
        Forbidden => "forbidden",
        /// A precondition that cannot be understood.
        PreconditionInvalid => "precondition_invalid",
        /// Nothing is served there.
        NoSuchPath => "no_such_path",
        /// Something is served there, but not by this method.
        MethodNotAllowed => "method_not_allowed",
        /// The answer has another media type than those asked for.
        NotAcceptable => "not_acceptable",
        /// No row has this key.
        NoSuchRow => "no_such_row",
        /// The body ended before its announced length.
        BodyIncomplete => "body_incomplete",
        /// The body did not come in time.
        BodyTooSlow => "body_too_slow",
        /// As many requests are in hand as may be.
        Busy => "busy",
        /// The process is about to stop.
        Draining => "draining",
        /// The broker did not take the write.
        BrokerUnavailable => "broker_unavailable",
        /// The database cannot be asked.
        DatabaseUnavailable => "database_unavailable",
        /// A fault of keylane's own.
        Internal => "internal",
    }
}

/// The stable name of what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The write can never be applied as it is.
    Rejected(Reason),
    /// The sender's own condition did not hold.
    Unmet(Unmet),
    /// One of HTTP's own.
    Own(Own),
}

impl Code {
    /// All of them: reasons, unmet conditions, HTTP's own.
    pub fn all() -> impl Iterator<Item = Self> {
        let reasons = Reason::ALL.iter().copied().map(Self::Rejected);
        let unmet = Unmet::ALL.iter().copied().map(Self::Unmet);
        reasons.chain(unmet).chain(Own::ALL.iter().copied().map(Self::Own))
    }

    /// The name in problems, paths and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.label(),
            Self::Unmet(unmet) => unmet.label(),
            Self::Own(own) => own.label(),
        }
    }

    /// The status of an answer with this code, whichever side noticed it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Rejected(reason) => rejected(reason),
            Self::Unmet(_) => StatusCode::PRECONDITION_FAILED,
            Self::Own(own) => own_status(own),
        }
    }
}

const fn rejected(reason: Reason) -> StatusCode {
    match reason {
        Reason::MalformedBody | Reason::MissingWriteId | Reason::MissingType => {
            StatusCode::BAD_REQUEST
        }
        Reason::UnknownEntity => StatusCode::NOT_FOUND,
        Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::UnknownChange
        | Reason::KeyInvalid
        | Reason::KeyMismatch
        | Reason::UnknownColumn
        | Reason::TypeMismatch
        | Reason::ConstraintViolation
        | Reason::UnsupportedGuard
        | Reason::WriteIdReused
        | Reason::RedeliveredTooOften
        | Reason::Discarded => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

const fn own_status(own: Own) -> StatusCode {
    match own {
        Own::Unauthorized => StatusCode::UNAUTHORIZED,
        Own::Forbidden => StatusCode::FORBIDDEN,
        Own::PreconditionInvalid | Own::BodyIncomplete => StatusCode::BAD_REQUEST,
        Own::NoSuchPath | Own::NoSuchRow => StatusCode::NOT_FOUND,
        Own::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Own::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Own::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
        Own::Busy | Own::Draining | Own::BrokerUnavailable | Own::DatabaseUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Own::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Reason> for Code {
    fn from(reason: Reason) -> Self {
        Self::Rejected(reason)
    }
}

impl From<Unmet> for Code {
    fn from(unmet: Unmet) -> Self {
        Self::Unmet(unmet)
    }
}

impl From<Own> for Code {
    fn from(own: Own) -> Self {
        Self::Own(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_the_status_that_the_contract_names() {
        for reason in Reason::ALL {
            let expected = match reason.label() {
                "malformed_body" | "missing_write_id" | "missing_type" => 400,
                "unknown_entity" => 404,
                "body_too_large" => 413,
                "unsupported_media_type" => 415,
                _ => 422,
            };
            assert_eq!(Code::from(*reason).status().as_u16(), expected, "{reason}");
        }
    }

    #[test]
    fn no_two_codes_have_one_name() {
        let names: BTreeSet<_> = Code::all().map(Code::label).collect();
        assert_eq!(names.len(), Code::all().count());
    }
}
