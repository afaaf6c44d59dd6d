//! What a column can hold, and whether a JSON value fits it unaltered.

/// The type of a column, with what of its modifier matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    /// smallint
    Int2,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// numeric, with precision and scale where the column declares them
    Numeric(Option<(u16, i16)>),
    /// real
    Float4,
    /// double precision
    Float8,
    /// text, varchar(n), char(n); the longest in characters
    Text(Option<u32>),
    /// boolean
    Bool,
    /// uuid
    Uuid,
    /// date
    Date,
    /// time without time zone; digits of a second
    Time(u8),
    /// timestamp without time zone; digits of a second
    Timestamp(u8),
    /// timestamp with time zone; digits of a second
    TimestampTz(u8),
    /// json
    Json,
    /// jsonb
    Jsonb,
    /// bytea
    Bytea,
    /// an enum and its labels
    Enum(Vec<String>),
    /// an array of any depth
    Array(Box<ColumnType>),
    /// any other type: given as a JSON string, judged by PostgreSQL
    Other,
}

/// Why a value does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What is wrong and what would be right, without the value itself.
    pub detail: String,
    /// Where inside the value, as the tail of a JSON pointer (`""` for the value itself, `/2`).
    pub pointer: String,
    /// Whether the catalogue may know better by now: an enum label that it did not have.
    pub stale: bool,
}
