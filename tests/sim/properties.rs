//! Properties of the core that no example can show: they hold for any list of any messages.

use std::collections::BTreeMap;

use keylane::core::batch::{BatchLimits, Item, Wanted};
use keylane::core::entity::Entities;
use keylane::core::failure::{Failure, Verdict};
use keylane::core::message::{Message, Properties, escape};
use keylane::core::outcome::{Outcome, Reason};
use keylane::core::parking::ParkLimits;
use keylane::core::partition::PartitionId;
use keylane::core::plan::{CommitPlan, Loaded, Settled, plan};
use proptest::prelude::*;
use serde_json::Value;
use time::OffsetDateTime;

use super::checks;
use super::database::STARTED_AT;
use super::model::entities::entities;
use super::model::generate::{Generator, Taste};
use super::model::{Answer, Model};
use super::tables::Tables;

const LIMITS: BatchLimits =
    BatchLimits { writes_max: usize::MAX, bytes_max: usize::MAX, body_bytes_max: 10_000 };
const NOTHING_RESTS: ParkLimits =
    ParkLimits { key_max: 0, room: 0, wait_max: time::Duration::ZERO };
const PARTITION: PartitionId = PartitionId { generation: 1, partition: 0 };
const ALL: &[&str] = &["item", "item_each", "plain", "plain_each"];

/// So many random messages, and the model that has seen them all.
fn messages(seed: u64, count: usize, taste: Taste) -> (Vec<Message>, Model) {
    let mut generator = Generator::new(seed, taste);
    let mut model = Model::default();
    let mut messages = Vec::new();
    for _ in 0..count {
        let message = generator.next(&model);
        model.apply(&message, STARTED_AT);
        messages.push(message);
    }
    (messages, model)
}

fn decoded(messages: &[Message], entities: &Entities) -> Vec<Item> {
    let tags = 1..;
    let items = tags.zip(messages);
    items.map(|(tag, message)| Item::new(tag, message.clone(), entities, LIMITS)).collect()
}

fn planned(tables: &Tables, items: &[Item], now: OffsetDateTime) -> CommitPlan {
    plan(items, tables.load(&Wanted::of(items), now), NOTHING_RESTS).expect("nothing rests")
}

/// Commits a batch as the loop does: cut in two in queue order where the table refuses a write.
fn commit(tables: &mut Tables, items: &mut [Item], now: OffsetDateTime) -> Vec<Settled> {
    let plan = planned(tables, items, now);
    let Err(failure) = tables.commit(PARTITION, items, &plan) else { return plan.settled };
    assert!(matches!(failure, Failure::Refused(_)), "{failure}");
    let verdict = failure.verdict(1, items.len());
    if matches!(verdict, Verdict::Reject(_)) {
        for item in &mut *items {
            item.judge(&verdict);
        }
        return commit(tables, items, now);
    }
    let (first, second) = items.split_at_mut(items.len() / 2);
    let mut settled = commit(tables, first, now);
    settled.extend(commit(tables, second, now));
    settled
}

fn run(messages: &[Message], cuts: &[usize]) -> (Vec<Settled>, Tables) {
    let entities = entities();
    let mut tables = Tables::default();
    let mut settled = Vec::new();
    let mut rest = messages;
    for cut in cuts {
        let (batch, behind) = rest.split_at(rest.len().min(*cut));
        rest = behind;
        settled.extend(commit(&mut tables, &mut decoded(batch, &entities), STARTED_AT));
    }
    settled.extend(commit(&mut tables, &mut decoded(rest, &entities), STARTED_AT));
    (settled, tables)
}

/// What senders are told; a detail's pointer is not, and the ledger does not keep it.
fn told(settled: &[Settled]) -> Vec<(Answer, OffsetDateTime)> {
    settled.iter().map(|settled| (checks::answer(settled), settled.applied_at)).collect()
}

/// The same message for the table that is not folded.
fn unfolded(message: &Message) -> Message {
    let mut message = message.clone();
    if let Some(kind) = &mut message.properties.kind {
        *kind = kind.replacen("item.", "item_each.", 1).replacen("plain.", "plain_each.", 1);
    }
    message
}

/// No quantity below zero: the check of the table that is not folded would refuse it.
fn harmless(message: &Message) -> bool {
    let body = String::from_utf8_lossy(&message.body);
    !body.contains("\"qty\":-") && !body.contains("\"qty\" : -")
}

fn taste(entities: &'static [&'static str]) -> Taste {
    Taste { entities, foreign_ids: true, overflows: true }
}

proptest! {
    // The failing input is printed; nothing is written beside the tests.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folding_in_batches_is_folding_in_one(
        seed: u64,
        cuts in prop::collection::vec(0_usize..20, 1..6),
    ) {
        let (messages, model) = messages(seed, 40, taste(ALL));
        let whole = run(&messages, &[]);
        let parts = run(&messages, &cuts);
        prop_assert_eq!(told(&whole.0), told(&parts.0));
        prop_assert_eq!(&whole.1, &parts.1);
        checks::same_rows(&model, &whole.1);
        checks::same_ledger(&model, &whole.1);
        checks::same_dead_letters(&model, &whole.1, false);
    }

    #[test]
    fn a_folded_table_ends_as_one_that_is_not(seed: u64, cut in 0_usize..40) {
        let folds = Taste { overflows: false, ..taste(&["item", "plain"]) };
        let (mut messages, _) = messages(seed, 40, folds);
        messages.retain(harmless);
        let each: Vec<Message> = messages.iter().map(unfolded).collect();
        let (folded, unfolded) = (run(&messages, &[cut]), run(&each, &[]));
        prop_assert_eq!(told(&folded.0), told(&unfolded.0));
        let rows: Vec<_> = folded.1.rows.into_iter().map(|((_, key), row)| (key, row)).collect();
        let same = unfolded.1.rows.into_iter().map(|((_, key), row)| (key, row));
        prop_assert_eq!(rows, same.collect::<Vec<_>>());
    }

    #[test]
    fn a_redelivered_batch_changes_nothing(seed: u64) {
        let entities = entities();
        let (messages, _) = messages(seed, 30, taste(ALL));
        let (first, mut tables) = run(&messages, &[]);
        let before = tables.clone();
        let mut again = decoded(&messages, &entities);
        let later = STARTED_AT + time::Duration::DAY;
        prop_assert!(planned(&tables, &again, later).rounds.is_empty());
        let settled = commit(&mut tables, &mut again, later);
        for ((item, first), again) in again.iter().zip(&first).zip(settled) {
            prop_assert_eq!(first.outcome.reason(), again.outcome.reason());
            prop_assert_eq!(first.outcome.label(), again.outcome.label());
            let reused = first.outcome.reason() == Some(Reason::WriteIdReused.label());
            let kept = item.identity().is_some() && !reused;
            prop_assert_eq!(again.replayed, kept, "{:?}", item);
            prop_assert!(!kept || again.applied_at == first.applied_at);
        }
        let anonymous = before.dead_letters.iter().filter(|letter| letter.identity.is_none()).count();
        prop_assert_eq!(tables.dead_letters.len(), before.dead_letters.len() + anonymous);
        tables.dead_letters.truncate(before.dead_letters.len());
        tables.history.truncate(before.history.len());
        prop_assert_eq!(tables, before);
    }

    #[test]
    fn keys_do_not_touch_each_other(seed: u64, cut in 0_usize..30) {
        let taste = Taste { foreign_ids: false, ..taste(ALL) };
        let (messages, _) = messages(seed, 40, taste);
        let (settled, tables) = run(&messages, &[cut]);
        let keys: Vec<&String> = messages.iter().map(|message| &message.routing_key).collect();
        for key in &keys {
            let is_of_key = |message: &&Message| message.routing_key == **key;
            let alone: Vec<Message> = messages.iter().filter(is_of_key).cloned().collect();
            let (expected, rows) = run(&alone, &[]);
            let got = keys.iter().zip(&settled).filter(|(other, _)| *other == key);
            let got: Vec<Settled> = got.map(|(_, settled)| settled.clone()).collect();
            prop_assert_eq!(told(&got), told(&expected));
            let got: BTreeMap<_, _> =
                tables.rows.iter().filter(|((_, of), _)| of == *key).collect();
            prop_assert_eq!(got, rows.rows.iter().collect());
        }
    }

    #[test]
    fn equal_input_gives_equal_plans_and_every_delivery_one_outcome(seed: u64, cut in 0_usize..30) {
        let entities = entities();
        let (messages, _) = messages(seed, 40, taste(ALL));
        let (head, tail) = messages.split_at(cut);
        let (_, tables) = run(head, &[]);
        let items = decoded(tail, &entities);
        let loaded = || tables.load(&Wanted::of(&items), STARTED_AT);
        let planned = || plan(&items, loaded(), NOTHING_RESTS).expect("nothing rests");
        let one = planned();
        prop_assert_eq!(&one, &planned());
        prop_assert_eq!(one.settled.len(), items.len());
        let rejected = |at: &usize| matches!(one.settled[*at].outcome, Outcome::Rejected(_));
        prop_assert!(one.dead_letters.iter().all(rejected));
        let kept = one.dead_letters.iter().filter_map(|at| items[*at].identity());
        let mut kept: Vec<_> = kept.map(|identity| (identity.id, identity.fingerprint)).collect();
        let letters = kept.len();
        kept.sort_unstable();
        kept.dedup();
        prop_assert_eq!(kept.len(), letters, "a write is one dead letter");
        for (at, settled) in one.settled.iter().enumerate() {
            let named = items[at].identity().is_some();
            let reused = settled.outcome.reason() == Some(Reason::WriteIdReused.label());
            prop_assert_eq!(one.ledger.contains(&at), named && !settled.replayed && !reused);
            let is_kept = one.dead_letters.contains(&at);
            prop_assert!(is_kept || settled.replayed || reused || !rejected(&at));
        }
    }

    #[test]
    fn any_message_gets_an_outcome_that_can_be_stored(message in any_message()) {
        let entities = entities();
        let items = decoded(std::slice::from_ref(&message), &entities);
        let plan = plan(&items, Loaded::nothing(STARTED_AT), NOTHING_RESTS);
        let plan = plan.expect("nothing rests");
        prop_assert_eq!(plan.settled.len(), 1);
        for item in &items {
            let stored = message.properties.stored();
            prop_assert!(!has_nul(&stored), "{}", stored);
            prop_assert!(!escape(&message.routing_key).contains('\0'));
            if let Some(identity) = item.identity() {
                let texts = [&identity.entity, &identity.key, &identity.write_id];
                prop_assert!(texts.iter().all(|text| !text.contains('\0')), "{:?}", identity);
            }
        }
        for Settled { outcome, .. } in &plan.settled {
            let Outcome::Rejected(rejection) = outcome else { continue };
            prop_assert_eq!(&plan.dead_letters, &[0]);
            prop_assert!(!rejection.detail.contains('\0'), "the ledger keeps it as it is");
            let pointer = rejection.pointer.as_deref().unwrap_or_default();
            prop_assert!(!pointer.contains('\0'), "{:?}", rejection);
        }
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Text that senders send, and text that nobody should.
fn any_text() -> impl Strategy<Value = String> {
    let letters = || prop::sample::select(vec!['a', '\0', '\\', '"', '/', '%', '.', 'é', '1']);
    let odd = prop::collection::vec(letters(), 0..6).prop_map(|text| text.into_iter().collect());
    prop_oneof![odd, ".{0,8}", "[0-9*]{1,3}", Just("2025-01-01T00:00:00Z".to_owned())]
}

fn any_header() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec((any_text(), inner), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let names = prop_oneof![
        prop::sample::select(vec!["name", "qty", "price", "note", "id"]).prop_map(str::to_owned),
        any_text()
    ];
    let object = prop::collection::vec((names, any_header()), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()).to_string().into_bytes());
    prop_oneof![
        object,
        prop::collection::vec(any::<u8>(), 0..40),
        any_text().prop_map(String::into_bytes)
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let changes = vec!["upsert", "create", "update", "replace", "increment", "delete", "up\0"];
    let entity = prop::sample::select(vec!["item", "plain", "item_each", "none\0"]);
    let kind =
        (entity, prop::sample::select(changes)).prop_map(|(e, change)| format!("{e}.{change}"));
    let kind =
        prop_oneof![4 => kind.prop_map(Some), 1 => any_text().prop_map(Some), 1 => Just(None)];
    let header_names =
        prop_oneof![Just("if-version".to_owned()), Just("occurred-at".to_owned()), any_text()];
    let headers = prop::collection::btree_map(header_names, any_header(), 0..3);
    let content_type = prop_oneof![4 => Just(None), 1 => any_text().prop_map(Some)];
    let parts = (any_text(), prop::option::of(any_text()), kind, headers, content_type, any_body());
    parts.prop_map(|(routing_key, message_id, kind, headers, content_type, body)| Message {
        routing_key,
        properties: Properties { message_id, kind, headers, content_type, ..Properties::default() },
        body,
    })
}
