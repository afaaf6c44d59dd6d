//! What a column of a type can hold: domains and arrays resolved down to [`ColumnType`].
//!
//! Owns: the mapping of PostgreSQL's types and modifiers. Pure.

use std::collections::HashMap;

use sqlx::postgres::types::Oid;

use super::queries::TypeRow;
use crate::core::column::ColumnType;

/// Domains over domains over arrays …: more than anybody nests, so that it ends in any case.
const DEPTH_MAX: usize = 32;
/// Digits of a second where a column does not say.
const SECOND_DIGITS: u8 = 6;
/// What PostgreSQL adds to the modifiers of texts and numbers.
const MODIFIER_OFFSET: i32 = 4;
/// A `name` is cut at 63 bytes; so many characters fit always.
const NAME_CHARS_MAX: u32 = 15;

/// All types that columns are made of.
#[derive(Debug)]
pub(super) struct Types(HashMap<Oid, TypeRow>);

/// A type as a column sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub kind: ColumnType,
    /// What to cast text to: the type beneath a domain, so that the assignment checks the domain.
    pub sql_type: String,
    /// The name of the type beneath all domains.
    pub base: String,
    pub not_null: bool,
    /// The default of the domain.
    pub default: Option<String>,
    /// Whether a domain at any level has a check.
    pub has_checks: bool,
}

impl Types {
    pub(super) fn new(rows: Vec<TypeRow>) -> Self {
        Self(rows.into_iter().map(|row| (row.oid, row)).collect())
    }

    /// The type `oid` under a column's `modifier`.
    pub(super) fn resolve(&self, oid: Oid, modifier: i32) -> Resolved {
        self.at_depth(oid, modifier, 0)
    }

    fn at_depth(&self, oid: Oid, modifier: i32, depth: usize) -> Resolved {
        let Some(row) = self.0.get(&oid).filter(|_| depth < DEPTH_MAX) else {
            return Resolved {
                kind: ColumnType::Other,
                sql_type: "text".to_owned(),
                base: "unknown".to_owned(),
                not_null: false,
                default: None,
                has_checks: false,
            };
        };
        if let Some(base) = row.base.filter(|_| row.kind == "d") {
            let beneath = self.at_depth(base, row.modifier, depth + 1);
            // A domain takes over the default of the domain beneath when it is made.
            return Resolved {
                not_null: row.not_null || beneath.not_null,
                default: row.default_sql.clone(),
                has_checks: row.has_checks || beneath.has_checks,
                ..beneath
            };
        }
        if let Some(element) = row.element {
            return self.array(row, element, modifier, depth);
        }
        Resolved {
            kind: scalar(row, modifier),
            sql_type: castable(row),
            base: row.name.clone(),
            not_null: false,
            default: None,
            has_checks: false,
        }
    }

    fn array(&self, row: &TypeRow, element: Oid, modifier: i32, depth: usize) -> Resolved {
        let of = self.at_depth(element, modifier, depth + 1);
        let is_domain = self.0.get(&element).is_some_and(|element| element.kind == "d");
        // PostgreSQL writes an array of a domain over an array as texts in braces, unlike any
        // nested array: whoever has one sends it as PostgreSQL writes it.
        let nested = matches!(of.kind, ColumnType::Array(_));
        let kind = if nested { ColumnType::Other } else { ColumnType::Array(Box::new(of.kind)) };
        let sql_type = if is_domain { row.sql.clone() } else { format!("{}[]", of.sql_type) };
        Resolved { kind, sql_type, base: row.sql.clone(), default: None, not_null: false, ..of }
    }
}

/// The type to cast text to. For lengths it is text itself, so that nothing is cut or padded
/// before the assignment looks at the length.
fn castable(row: &TypeRow) -> String {
    let text = row.builtin && matches!(&*row.name, "varchar" | "bpchar" | "name");
    if text { "text".to_owned() } else { row.sql.clone() }
}

fn scalar(row: &TypeRow, modifier: i32) -> ColumnType {
    if row.kind == "e" {
        return ColumnType::Enum(row.labels.clone());
    }
    if !row.builtin {
        return ColumnType::Other;
    }
    match &*row.name {
        "int2" => ColumnType::Int2,
        "int4" => ColumnType::Int4,
        "int8" => ColumnType::Int8,
        "numeric" => ColumnType::Numeric(precision_and_scale(modifier)),
        "float4" => ColumnType::Float4,
        "float8" => ColumnType::Float8,
        "text" => ColumnType::Text(None),
        "varchar" | "bpchar" => ColumnType::Text(length(modifier)),
        "name" => ColumnType::Text(Some(NAME_CHARS_MAX)),
        "bool" => ColumnType::Bool,
        "uuid" => ColumnType::Uuid,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time(second_digits(modifier)),
        "timestamp" => ColumnType::Timestamp(second_digits(modifier)),
        "timestamptz" => ColumnType::TimestampTz(second_digits(modifier)),
        "json" => ColumnType::Json,
        "jsonb" => ColumnType::Jsonb,
        "bytea" => ColumnType::Bytea,
        _ => ColumnType::Other,
    }
}

fn length(modifier: i32) -> Option<u32> {
    u32::try_from(modifier.checked_sub(MODIFIER_OFFSET)?).ok()
}

fn second_digits(modifier: i32) -> u8 {
    u8::try_from(modifier).unwrap_or(SECOND_DIGITS)
}

/// Precision in the upper half; scale in the lower eleven bits, signed since PostgreSQL 15.
fn precision_and_scale(modifier: i32) -> Option<(u16, i16)> {
    const SCALE_BITS: i32 = 0x7ff;
    const SIGN_BIT: i32 = 0x400;
    let packed = modifier.checked_sub(MODIFIER_OFFSET).filter(|packed| *packed >= 0)?;
    let scale = ((packed & SCALE_BITS) ^ SIGN_BIT) - SIGN_BIT;
    Some((u16::try_from(packed >> 16).ok()?, i16::try_from(scale).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The modifiers are those that PostgreSQL 15 stores for `numeric(p, s)`.
    #[test]
    fn a_modifier_of_numeric_holds_precision_and_a_signed_scale() {
        let table = [
            (-1, None),
            (3, None),
            (4 + (12 << 16) + 2, Some((12, 2))),
            (4 + (1 << 16), Some((1, 0))),
            (4 + (1000 << 16) + 1000, Some((1000, 1000))),
            (4 + (2 << 16) + (2048 - 3), Some((2, -3))),
            (4 + (1000 << 16) + (2048 - 1000), Some((1000, -1000))),
        ];
        for (modifier, expected) in table {
            assert_eq!(precision_and_scale(modifier), expected, "{modifier}");
        }
    }

    #[test]
    fn a_modifier_of_a_time_is_its_digits() {
        assert_eq!([-1, 0, 3, 6].map(second_digits), [6, 0, 3, 6]);
    }
}
