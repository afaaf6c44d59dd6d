//! The messages that every contender gets: about 330 bytes of properties and body, made from a seed.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// How many business keys there are.
pub(crate) const KEYS: u32 = 50_000;

/// The table of the entity `customer`.
pub(crate) const TABLE: &str = "
    create table if not exists public.customers (
        external_id       text primary key,
        name              text not null default '',
        email             text,
        tier              text,
        city              text,
        balance           bigint not null default 0,
        active            boolean not null default true,
        note              text,
        version           bigint not null default 0,
        source_updated_at timestamptz
    )";

/// How the writes are spread over the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Upserts of all keys alike.
    Uniform,
    /// Upserts of one key.
    OneKey,
    /// Increments of three keys.
    ThreeCounters,
}

/// One message.
pub(crate) struct Sample {
    pub(crate) key: String,
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

/// Makes messages, the same ones from the same seed but for their write ids.
pub(crate) struct Samples {
    shape: Shape,
    random: SmallRng,
    at: OffsetDateTime,
}

impl Samples {
    /// Messages of a shape; their `occurred-at` grows from one to the next.
    pub(crate) fn new(shape: Shape) -> Self {
        let at = keylane::clock::now() - Duration::minutes(1);
        Self { shape, random: SmallRng::seed_from_u64(7), at }
    }

    fn key(&mut self) -> String {
        let number = match self.shape {
            Shape::Uniform => self.random.random_range(0..KEYS),
            Shape::OneKey => 0,
            Shape::ThreeCounters => self.random.random_range(0..3),
        };
        format!("CUST-{number:06}")
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Sample {
        let key = self.key();
        let number: u32 = self.random.random_range(0..1_000_000);
        self.at += Duration::microseconds(1);
        let mut properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_message_id(Uuid::new_v4().to_string().into());
        let (kind, body) = if self.shape == Shape::ThreeCounters {
            ("customer.increment", r#"{"balance":1}"#.to_owned())
        } else {
            let mut headers = FieldTable::default();
            let at = self.at.format(&Rfc3339).unwrap_or_default();
            headers.insert("occurred-at".into(), AMQPValue::LongString(LongString::from(at)));
            properties = properties.with_headers(headers);
            ("customer.upsert", upsert(number))
        };
        properties = properties.with_type(kind.into());
        Sample { key, body: body.into_bytes(), properties }
    }
}

/// The body of an upsert.
pub(crate) fn upsert(number: u32) -> String {
    format!(
        r#"{{"name":"Ada Lovelace {number}","email":"ada.{number}@example.org","tier":"gold","city":"London","balance":{number},"active":{},"note":"asked for a call back on Monday, order {number}"}}"#,
        number.is_multiple_of(2)
    )
}
