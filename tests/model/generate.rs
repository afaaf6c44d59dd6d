//! Random writes from a seed: right and wrong ones, repeats, few hot keys and many cold ones.

use std::fmt::Write as _;

use keylane::core::message::{Message, Properties};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;
use time::{Duration, OffsetDateTime, UtcOffset};

use super::Model;
use super::entities::Spec;

const HOT_KEYS: [&str; 3] = ["hot", "hot/2 %", "ключ"];
const COLD_KEYS: u32 = 60;
/// Guards lie within three hours behind this.
const OCCURRED_FROM: OffsetDateTime = datetime!(2025-01-01 00:00 UTC);

/// What a generator makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taste {
    pub(crate) entities: &'static [&'static str],
    /// Write ids of one key are used under another too: only one partition can promise an answer.
    pub(crate) foreign_ids: bool,
    /// Sums may leave their columns: only the database judges that where nothing is folded.
    pub(crate) overflows: bool,
}

pub(crate) struct Generator {
    rng: SmallRng,
    taste: Taste,
    sent: Vec<Message>,
}

impl Generator {
    pub(crate) fn new(seed: u64, taste: Taste) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), taste, sent: Vec::new() }
    }

    /// The next message; `model` has seen all earlier ones, so that guards can be right.
    pub(crate) fn next(&mut self, model: &Model) -> Message {
        let message = match self.rng.random_range(0..100) {
            0..12 if !self.sent.is_empty() => self.repeat(),
            12..16 if !self.sent.is_empty() => self.reuse(model),
            16..26 => self.defective(model),
            _ => self.fresh(model),
        };
        self.sent.push(message.clone());
        message
    }

    fn earlier(&mut self) -> Message {
        // Mostly a recent one: such repeats meet in one batch.
        let recent = self.sent.len().saturating_sub(if self.rng.random() { 8 } else { 100 });
        self.sent
            .get(recent..)
            .and_then(|sent| sent.choose(&mut self.rng))
            .cloned()
            .unwrap_or_default()
    }

    /// An earlier write again, maybe in other letters.
    fn repeat(&mut self) -> Message {
        let mut message = self.earlier();
        if self.rng.random()
            && let Ok(Value::Object(members)) = serde_json::from_slice(&message.body)
            && serde_json::from_slice::<Value>(&message.body).map(|v| v.to_string().len()).ok()
                == Some(message.body.len())
        {
            let mut body = String::from("{ ");
            for (position, (name, value)) in members.iter().rev().enumerate() {
                let comma = if position == 0 { "" } else { " ,\n" };
                let same = match value {
                    Value::Number(number) if !number.to_string().contains(['.', 'e']) => {
                        format!("{number}.0e0")
                    }
                    value => value.to_string(),
                };
                write!(body, "{comma}\"{name}\" : {same}").expect("text can grow");
            }
            message.body = (body + "}").into_bytes();
        }
        message
    }

    /// An earlier write id with other content.
    fn reuse(&mut self, model: &Model) -> Message {
        let earlier = self.earlier();
        if self.rng.random_ratio(1, 3) {
            return self.altered(earlier);
        }
        let mut message = self.fresh(model);
        message.properties.message_id = earlier.properties.message_id;
        if !self.taste.foreign_ids {
            message.routing_key = earlier.routing_key;
        }
        message
    }

    /// The same message but for one part of its content.
    fn altered(&mut self, mut message: Message) -> Message {
        let Properties { headers, kind, .. } = &mut message.properties;
        let name = if self.rng.random() { "if-version" } else { "occurred-at" };
        match (self.rng.random_range(0..3), kind) {
            (0, Some(kind)) => *kind = kind.replace(".upsert", ".replace"),
            (1, _) if headers.remove(name).is_some() => {}
            _ => {
                let value = if name == "if-version" { "1" } else { "2024-12-31T00:00:00Z" };
                headers.insert(name.to_owned(), json!(value));
            }
        }
        message
    }

    fn fresh(&mut self, model: &Model) -> Message {
        let entity = *self.taste.entities.choose(&mut self.rng).expect("there are entities");
        let change = match self.rng.random_range(0..20) {
            0..7 => "upsert",
            7..9 => "create",
            9..12 => "update",
            12..14 => "replace",
            14..18 => "increment",
            _ => "delete",
        };
        let key = self.key();
        let mut body = match change {
            "delete" => json!({}),
            "increment" => self.numbers(),
            _ => self.columns(),
        };
        if self.rng.random_ratio(1, 10) {
            body["id"] = json!(key);
        }
        let guarded = Spec::named(entity).is_some_and(|spec| spec.guarded);
        let body =
            if change == "delete" && self.rng.random() { String::new() } else { body.to_string() };
        let mut message = self.message(&format!("{entity}.{change}"), &key, body.into_bytes());
        self.guards(&mut message.properties, guarded, model.rows.get(&(entity.to_owned(), key)));
        message
    }

    fn message(&mut self, kind: &str, key: &str, body: Vec<u8>) -> Message {
        let properties = Properties {
            message_id: Some(format!("{:016x}", self.rng.random::<u64>())),
            kind: Some(kind.to_owned()),
            content_type: self.rng.random::<bool>().then(|| "application/json".to_owned()),
            ..Properties::default()
        };
        Message { routing_key: key.to_owned(), properties, body }
    }

    fn key(&mut self) -> String {
        match HOT_KEYS.choose(&mut self.rng) {
            Some(hot) if self.rng.random_ratio(3, 5) => (*hot).to_owned(),
            _ => format!("cold-{}", self.rng.random_range(0..COLD_KEYS)),
        }
    }

    fn guards(&mut self, to: &mut Properties, guarded: bool, row: Option<&super::Row>) {
        let version = row.map_or(1, |row| row.version);
        let if_version = match self.rng.random_range(0..12) {
            0 => Some(json!("*")),
            1 => Some(json!(0)),
            2 if guarded => Some(json!(version)),
            3 if guarded => Some(json!(version.to_string())),
            4 if guarded => Some(json!(version + 1)),
            _ => None,
        };
        to.headers.extend(if_version.map(|value| ("if-version".to_owned(), value)));
        if guarded && self.rng.random_ratio(1, 3) {
            // Few values, so that equal times are met too.
            let seconds = self.rng.random_range(0..8) * 1_250;
            let micros = *[0, 500_000, 1].choose(&mut self.rng).expect("there are some");
            let zone =
                UtcOffset::from_hms(self.rng.random_range(-3..4), 30, 0).unwrap_or(UtcOffset::UTC);
            let at = OCCURRED_FROM + Duration::seconds(seconds) + Duration::microseconds(micros);
            let text = at.to_offset(zone).format(&Rfc3339).expect("the year has four digits");
            to.headers.insert("occurred-at".to_owned(), json!(text));
        }
    }

    fn columns(&mut self) -> Value {
        let mut body = json!({});
        if self.rng.random() {
            body["name"] = self.choose(&[json!("a"), json!("b\"\\é"), json!(""), Value::Null]);
        }
        if self.rng.random() {
            body["note"] = self.choose(&[json!("ten chars!"), json!("n"), json!("éééééééééé")]);
        }
        if self.rng.random_ratio(2, 3) {
            let low = if self.rng.random_ratio(1, 8) { -20 } else { 0 };
            body["qty"] = json!(self.rng.random_range(low..30));
        }
        if self.rng.random_ratio(1, 12) {
            let most = if self.taste.overflows { i32::MAX } else { 99 };
            body["qty"] = self.choose(&[Value::Null, json!(most)]);
        }
        if self.rng.random_ratio(2, 3) {
            body["price"] = self.price();
        }
        body
    }

    fn numbers(&mut self) -> Value {
        let mut body = json!({});
        if self.rng.random_ratio(3, 4) {
            body["qty"] = json!(self.rng.random_range(-12..12));
        }
        if self.rng.random_ratio(1, 3) {
            body["price"] = self.price();
        }
        if self.taste.overflows && self.rng.random_ratio(1, 20) {
            body["qty"] = json!(i32::MAX - 5);
        }
        body
    }

    fn price(&mut self) -> Value {
        let (whole, cents) = (self.rng.random_range(-99..999), self.rng.random_range(0..100));
        let text = match self.rng.random_range(0..4) {
            0 => format!("{whole}"),
            1 => format!("{whole}.{}", cents / 10),
            2 => format!("{whole}.{cents:02}00"),
            _ => format!("{whole}.{cents:02}"),
        };
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn choose(&mut self, among: &[Value]) -> Value {
        among.choose(&mut self.rng).cloned().unwrap_or_default()
    }

    /// A message with one thing wrong.
    fn defective(&mut self, model: &Model) -> Message {
        let mut message = self.fresh(model);
        if message.properties.kind.as_ref().is_some_and(|kind| kind.ends_with(".delete")) {
            message.body = b"[]".to_vec();
            return message;
        }
        let properties = &mut message.properties;
        let entity = properties.kind.as_deref().and_then(|kind| kind.split('.').next());
        let entity = entity.unwrap_or_default().to_owned();
        match self.rng.random_range(0..10) {
            0 => properties.message_id = None,
            1 => properties.message_id = Some("i".repeat(201)),
            2 => properties.kind = None,
            3 => properties.kind = Some("nobody.upsert".to_owned()),
            4 => properties.kind = Some(format!("{entity}.upset")),
            5 => properties.content_type = Some("text/csv".to_owned()),
            6 => {
                let bad = self.choose(&[json!("soon"), json!("2999-01-01T00:00:00Z")]);
                properties.headers.insert("occurred-at".to_owned(), bad);
            }
            7 => {
                properties.headers.insert("if-version".to_owned(), json!("seven"));
            }
            8 => message.routing_key = String::from("nul\0key"),
            _ => message.body = self.bad_body(),
        }
        message
    }

    fn bad_body(&mut self) -> Vec<u8> {
        let bodies: [&[u8]; 20] = [
            b"",
            b"{",
            b"[1]",
            b"7",
            b"{\"name\":\"a\",\"name\":\"a\"}",
            b"{\"name\":\"\xff\"}",
            b"{\"qty\":1}x",
            b"{\"qty\":1.5}",
            b"{\"qty\":2147483648}",
            b"{\"qty\":\"many\"}",
            b"{\"price\":0.004}",
            b"{\"price\":1e10}",
            b"{\"price\":1e400}",
            b"{\"note\":\"eleven char\"}",
            b"{\"note\":null}",
            b"{\"note\":[]}",
            b"{\"name\":\"a\\u0000\"}",
            b"{\"color\":1}",
            b"{\"deleted_at\":null}",
            b"{\"id\":\"somebody else\"}",
        ];
        bodies.choose(&mut self.rng).expect("there are bodies").to_vec()
    }
}
