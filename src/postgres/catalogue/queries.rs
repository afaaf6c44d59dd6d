//! What the catalogue says about the configured tables: five statements for all of them.
//!
//! Owns: the SQL and its rows, for PostgreSQL 13 and newer.
//! Never: decides whether what it reads is good enough.
//!
//! The caller sets `search_path` to `pg_catalog` alone, so that every name that PostgreSQL prints
//! (in defaults, in types) comes out with its schema.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::postgres::types::Oid;

use crate::settings::EntitySettings;

/// A configured table.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "facts of the catalogue, as it tells them")]
pub(super) struct TableRow {
    pub entity: String,
    /// None: there is no such table.
    pub oid: Option<Oid>,
    /// `pg_class.relkind`.
    pub kind: Option<String>,
    /// Schema and table as SQL, quoted where needed.
    pub sql: String,
    /// The schema as SQL.
    pub schema_sql: String,
    /// Tables that may have been meant.
    pub near: Vec<String>,
    /// The role that asks, as SQL.
    pub role: String,
    pub is_partition: bool,
    pub has_children: bool,
    pub schema_usage: bool,
    pub missing_privileges: Vec<String>,
    pub row_security: bool,
    /// Rules that stand in for our statements, or that forbid `on conflict`.
    pub rules: Vec<String>,
    pub has_rules: bool,
    pub has_checks: bool,
    pub has_references: bool,
    pub has_exclusions: bool,
    pub has_triggers: bool,
}

pub(super) async fn tables(
    connection: &mut PgConnection,
    settings: &BTreeMap<String, EntitySettings>,
) -> Result<Vec<TableRow>, sqlx::Error> {
    const SQL: &str = "
        select w.entity, c.oid, c.relkind::text as kind,
               format('%I.%I', w.schema, w.name) as sql, quote_ident(w.schema) as schema_sql,
               array(select m.nspname || '.' || o.relname
                       from pg_class o join pg_namespace m on m.oid = o.relnamespace
                      where c.oid is null and o.relkind in ('r', 'p')
                        and lower(o.relname) = lower(w.name) and m.nspname !~ '^pg_'
                      order by 1 limit 5) as near,
               quote_ident(current_user) as role,
               coalesce(c.relispartition, false) as is_partition,
               exists (select from pg_inherits h where h.inhparent = c.oid) as has_children,
               coalesce(has_schema_privilege(n.oid, 'usage'), true) as schema_usage,
               array(select p from unnest('{select,insert,update,delete}'::text[]) as p
                      where not has_table_privilege(c.oid, p)) as missing_privileges,
               coalesce(row_security_active(c.oid), false) as row_security,
               array(select quote_ident(r.rulename) from pg_rewrite r
                      where r.ev_class = c.oid and r.ev_type <> '1' and r.ev_enabled <> 'D'
                        and (r.is_instead or r.ev_type in ('2', '3'))
                      order by 1) as rules,
               exists (select from pg_rewrite r where r.ev_class = c.oid
                          and r.ev_type <> '1' and r.ev_enabled <> 'D') as has_rules,
               exists (select from pg_constraint k
                        where k.conrelid = c.oid and k.contype = 'c') as has_checks,
               exists (select from pg_constraint k where k.contype = 'f'
                          and (k.conrelid = c.oid or k.confrelid = c.oid)) as has_references,
               exists (select from pg_constraint k
                        where k.conrelid = c.oid and k.contype = 'x') as has_exclusions,
               exists (select from pg_trigger t
                        where not t.tgisinternal and t.tgenabled <> 'D'
                          and (t.tgrelid = c.oid
                               or t.tgrelid in (select p.relid from pg_partition_tree(c.oid) p))
                      ) as has_triggers
          from unnest($1::text[], $2::text[], $3::text[]) as w (entity, schema, name)
          left join pg_namespace n on n.nspname = w.schema
          left join pg_class c on c.relnamespace = n.oid and c.relname = w.name
                              and c.relkind in ('r', 'p', 'v', 'm', 'f')
         order by w.entity";
    let names: Vec<&str> = settings.keys().map(String::as_str).collect();
    let (schemas, tables): (Vec<&str>, Vec<&str>) =
        settings.values().map(EntitySettings::schema_and_table).unzip();
    sqlx::query_as(SQL).bind(names).bind(schemas).bind(tables).fetch_all(connection).await
}

/// A column of a configured table, in the table's order.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "facts of the catalogue, as it tells them")]
pub(super) struct ColumnRow {
    pub relation: Oid,
    pub name: String,
    /// The name as SQL.
    pub sql: String,
    pub type_oid: Oid,
    pub modifier: i32,
    pub not_null: bool,
    pub default_sql: Option<String>,
    /// `pg_attribute.attidentity`: empty, `a` (always) or `d` (by default).
    pub identity: String,
    pub generated: bool,
    /// Whether its collation may call different texts equal.
    pub nondeterministic: bool,
    /// Whether its default counts up a sequence of its own.
    pub serial: bool,
    /// Sequences behind its default that the role may not use.
    pub denied_sequences: Vec<String>,
}

pub(super) async fn columns(
    connection: &mut PgConnection,
    tables: &[Oid],
) -> Result<Vec<ColumnRow>, sqlx::Error> {
    const SQL: &str = "
        select a.attrelid as relation, a.attname::text as name, quote_ident(a.attname) as sql,
               a.atttypid as type_oid, a.atttypmod as modifier, a.attnotnull as not_null,
               case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end
                   as default_sql,
               a.attidentity::text as identity, a.attgenerated <> '' as generated,
               coalesce(not l.collisdeterministic, false) as nondeterministic,
               coalesce(s.serial, false) as serial,
               coalesce(s.denied, '{}') as denied_sequences
          from pg_attribute a
          left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
          left join pg_collation l on l.oid = a.attcollation
          left join lateral (
               select bool_or(exists (
                          select from pg_depend o
                           where o.classid = 'pg_class'::regclass and o.objid = q.oid
                             and o.refclassid = 'pg_class'::regclass
                             and o.refobjid = a.attrelid and o.refobjsubid = a.attnum
                             and o.deptype = 'a')) as serial,
                      array_agg(format('%I.%I', m.nspname, q.relname))
                          filter (where not has_sequence_privilege(q.oid, 'usage, update'))
                          as denied
                 from pg_depend u
                 join pg_class q on q.oid = u.refobjid and q.relkind = 'S'
                 join pg_namespace m on m.oid = q.relnamespace
                where u.classid = 'pg_attrdef'::regclass and u.objid = d.oid
                  and u.refclassid = 'pg_class'::regclass) s on true
         where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped
         order by a.attrelid, a.attnum";
    sqlx::query_as(SQL).bind(tables).fetch_all(connection).await
}

/// A type of a column, or one that such a type is made of.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct TypeRow {
    pub oid: Oid,
    /// Whether it comes with PostgreSQL.
    pub builtin: bool,
    pub name: String,
    /// The type as SQL, with its schema, without a modifier.
    pub sql: String,
    /// `pg_type.typtype`: `d` is a domain, `e` an enum.
    pub kind: String,
    /// The type of an array's elements.
    pub element: Option<Oid>,
    /// The type beneath a domain.
    pub base: Option<Oid>,
    /// A domain's modifier for the type beneath; -1: none.
    pub modifier: i32,
    pub not_null: bool,
    pub default_sql: Option<String>,
    pub has_checks: bool,
    pub labels: Vec<String>,
}

pub(super) async fn types(
    connection: &mut PgConnection,
    types: &[Oid],
) -> Result<Vec<TypeRow>, sqlx::Error> {
    const SQL: &str = "
        with recursive made_of (oid) as (
            select unnest($1)
            union
            select case when t.typtype = 'd' then t.typbasetype else t.typelem end
              from made_of m join pg_type t on t.oid = m.oid
             where t.typtype = 'd' or t.typelem <> 0)
        select t.oid, t.typnamespace = 'pg_catalog'::regnamespace as builtin,
               t.typname::text as name, format_type(t.oid, -1) as sql, t.typtype::text as kind,
               (select e.oid from pg_type e where e.oid = t.typelem and e.typarray = t.oid)
                   as element,
               nullif(t.typbasetype, 0::oid) as base, t.typtypmod as modifier,
               t.typnotnull as not_null, pg_get_expr(t.typdefaultbin, 0) as default_sql,
               exists (select from pg_constraint k
                        where k.contypid = t.oid and k.contype = 'c') as has_checks,
               array(select e.enumlabel::text from pg_enum e
                      where e.enumtypid = t.oid order by e.enumsortorder) as labels
          from made_of m join pg_type t on t.oid = m.oid";
    sqlx::query_as(SQL).bind(types).fetch_all(connection).await
}

/// An index of a configured table.
#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(clippy::struct_excessive_bools, reason = "facts of the catalogue, as it tells them")]
pub(super) struct IndexRow {
    pub relation: Oid,
    /// Schema and index as SQL.
    pub sql: String,
    /// Its constraint as SQL, where it has one.
    pub constraint_sql: Option<String>,
    /// The columns it is on, without those it only includes.
    pub columns: Vec<String>,
    /// The columns that it depends on in any way, by an expression or a condition too.
    pub mentions: Vec<String>,
    pub is_unique: bool,
    pub is_valid: bool,
    pub is_immediate: bool,
    pub is_partial: bool,
    pub has_expressions: bool,
    /// Whether one of its collations may call different texts equal.
    pub nondeterministic: bool,
}

pub(super) async fn indexes(
    connection: &mut PgConnection,
    tables: &[Oid],
) -> Result<Vec<IndexRow>, sqlx::Error> {
    const SQL: &str = "
        select i.indrelid as relation, format('%I.%I', n.nspname, c.relname) as sql,
               (select quote_ident(k.conname) from pg_constraint k
                 where k.conindid = i.indexrelid and k.contype in ('p', 'u')) as constraint_sql,
               array(select a.attname::text
                       from generate_series(0, i.indnkeyatts - 1) as p
                       join pg_attribute a
                         on a.attrelid = i.indrelid and a.attnum = i.indkey[p]
                      order by p) as columns,
               array(select distinct a.attname::text
                       from pg_depend d
                       join pg_attribute a
                         on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                      where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
                        and d.refclassid = 'pg_class'::regclass and d.refobjid = i.indrelid
                        and d.refobjsubid > 0) as mentions,
               i.indisunique and not i.indisexclusion as is_unique,
               i.indisvalid and i.indisready and i.indislive as is_valid,
               i.indimmediate as is_immediate, i.indpred is not null as is_partial,
               i.indexprs is not null as has_expressions,
               exists (select from generate_series(0, i.indnkeyatts - 1) as p
                         join pg_collation l on l.oid = i.indcollation[p]
                        where not l.collisdeterministic) as nondeterministic
          from pg_index i
          join pg_class c on c.oid = i.indexrelid
          join pg_namespace n on n.oid = c.relnamespace
         where i.indrelid = any($1)
         order by i.indrelid, c.relname";
    sqlx::query_as(SQL).bind(tables).fetch_all(connection).await
}
