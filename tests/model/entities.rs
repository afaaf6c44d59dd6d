//! The example entities, as the model knows them and as the catalogue would describe them.

use std::sync::Arc;

use keylane::core::column::ColumnType;
use keylane::core::entity::{Column, Entities, Entity};

/// An example entity; columns as in `tables.sql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// It has version, `occurred_at` and `deleted_at`.
    pub(crate) guarded: bool,
    /// It is folded; otherwise its table has a check, `qty >= 0`.
    pub(crate) folds: bool,
    /// Its later writes rest behind a dead letter.
    pub(crate) parks: bool,
}

impl Spec {
    /// The greatest numeric(12,2), in cents.
    pub(crate) const CENTS_MAX: i64 = 999_999_999_999;

    /// Every example entity.
    pub(crate) const ALL: [Self; 6] = [
        Self { name: "item", guarded: true, folds: true, parks: false },
        Self { name: "item_each", guarded: true, folds: false, parks: false },
        Self { name: "park", guarded: true, folds: true, parks: true },
        Self { name: "park_each", guarded: false, folds: false, parks: true },
        Self { name: "plain", guarded: false, folds: true, parks: false },
        Self { name: "plain_each", guarded: false, folds: false, parks: false },
    ];

    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        const ALL: &[Spec; 6] = &Spec::ALL;
        ALL.iter().find(|spec| spec.name == name)
    }
}

/// The example entities for the core.
pub(crate) fn entities() -> Entities {
    Spec::ALL.iter().map(|spec| (spec.name.to_owned(), Arc::new(entity(*spec)))).collect()
}

fn entity(spec: Spec) -> Entity {
    let guard = |name: &str| spec.guarded.then(|| name.to_owned());
    let numeric = ColumnType::Numeric(Some((12, 2)));
    let note =
        column("note", ColumnType::Text(Some(10)), "varchar", Some("'x'::character varying"));
    Entity {
        name: spec.name.to_owned(),
        table: format!("\"public\".\"{}\"", spec.name),
        key: vec![Column { not_null: true, ..column("id", ColumnType::Text(None), "text", None) }],
        columns: vec![
            column("name", ColumnType::Text(None), "text", None),
            Column { not_null: true, ..note },
            column("price", numeric, "numeric", None),
            column("qty", ColumnType::Int4, "integer", Some("5")),
        ],
        version: guard("version"),
        occurred_at: guard("occurred_at"),
        deleted_at: guard("deleted_at"),
        fold: spec.folds,
        user_triggers: false,
        parks: spec.parks,
    }
}

fn column(name: &str, kind: ColumnType, sql_type: &str, default: Option<&str>) -> Column {
    Column {
        name: name.to_owned(),
        kind,
        sql_type: sql_type.to_owned(),
        not_null: false,
        default: default.map(str::to_owned),
    }
}
