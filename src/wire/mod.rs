//! The outcome as senders get it, over AMQP and over HTTP (WIRE.md, section 4).

pub mod line;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use utoipa::ToSchema;

use crate::core::outcome::{Effect, Outcome, Reason, Rest, Unmet};
use crate::core::write::Identity;

/// RFC 3339 in UTC, always in microseconds: what PostgreSQL keeps.
const MICROSECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// What became of a write. Stored once; every repeat gets the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeBody {
    /// The configured table; `null` where the message names none that is known.
    #[schema(required, example = "customer")]
    pub entity: Option<String>,
    /// The business key, as it stands in the routing key.
    #[schema(example = "CUST-4892")]
    pub key: String,
    /// The sender's idempotency key.
    #[schema(required, example = "5b1f")]
    pub write_id: Option<String>,
    /// `applied`, `precondition_failed`, `rejected` or `parked`.
    #[schema(schema_with = schemas::outcome)]
    pub outcome: String,
    /// Of an applied write: `created`, `updated`, `deleted` or `unchanged`.
    #[schema(required, schema_with = schemas::effect)]
    pub effect: Option<String>,
    /// The row's version afterwards, where the entity has one and the row is there.
    #[schema(required, example = 7)]
    pub version: Option<i64>,
    /// Why it was not applied.
    #[schema(required, schema_with = schemas::reason)]
    pub reason: Option<String>,
    /// The same in words.
    #[schema(required)]
    pub detail: Option<String>,
    /// JSON pointer (RFC 6901) to the member of the body to blame; left out where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// RFC 3339, in microseconds.
    #[schema(format = DateTime, example = "2026-11-21T02:00:00.123456Z")]
    pub applied_at: String,
    /// It was decided before: this time nothing was changed.
    pub replayed: bool,
}

impl OutcomeBody {
    /// The outcome of a write with a name; `key` is the routing key where it has none.
    pub fn new(
        identity: Option<&Identity>,
        key: &str,
        outcome: &Outcome,
        applied_at: OffsetDateTime,
        replayed: bool,
    ) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            entity: identity.map(|identity| identity.entity.clone()),
            key: identity.map_or_else(|| key.to_owned(), |identity| identity.key.clone()),
            write_id: identity.map(|identity| identity.write_id.clone()),
            outcome: outcome.label().to_owned(),
            effect: owned(outcome.effect()),
            version: outcome.version(),
            reason: owned(outcome.reason()),
            detail: owned(outcome.detail()),
            pointer: owned(outcome.pointer()),
            applied_at: applied_at.format(MICROSECONDS).unwrap_or_default(),
            replayed,
        }
    }

    /// Whether it stays what it is.
    pub fn is_final(&self) -> bool {
        self.outcome != "parked"
    }
}

/// The closed lists of labels, for documents.
pub(crate) mod schemas {
    use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

    use super::{Effect, Outcome, Reason, Rest, Unmet};

    pub(crate) fn labels(labels: impl IntoIterator<Item = &'static str>) -> Object {
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(labels)).build()
    }

    fn labels_or_null(labels: impl IntoIterator<Item = &'static str>) -> Object {
        let labels = labels.into_iter().map(serde_json::Value::from);
        ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
            .enum_values(Some(labels.chain([serde_json::Value::Null])))
            .build()
    }

    pub(crate) fn outcome() -> Object {
        let mut schema = labels(Outcome::LABELS);
        schema.description = Some("What became of it; `parked` is not final".to_owned());
        schema
    }

    pub(crate) fn effect() -> Object {
        let mut schema = labels_or_null(Effect::ALL.iter().map(|effect| effect.label()));
        schema.description = Some("Of an applied write".to_owned());
        schema
    }

    pub(crate) fn reason() -> Object {
        let reasons = Reason::ALL.iter().map(|reason| reason.label());
        let unmet = Unmet::ALL.iter().map(|unmet| unmet.label());
        let rests = Rest::ALL.iter().map(|rest| rest.label());
        let mut schema = labels_or_null(reasons.chain(unmet).chain(rests));
        schema.description = Some("Why it was not applied".to_owned());
        schema
    }
}
