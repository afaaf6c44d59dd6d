//! Looks at the database: may a worker trust it, and may it do what it has to.

use std::collections::BTreeSet;

use sqlx::{FromRow, PgConnection};

use super::{Check, Newest};
use crate::operate::{chain, connect, routing};
use crate::postgres::catalogue::{self, CatalogueError};
use crate::postgres::migrate;
use crate::settings::Settings;

/// The oldest PostgreSQL that has everything that is used.
const VERSION_MIN: i32 = 13;
/// Longest wait for each of these questions.
const STATEMENT_TIMEOUT_MS: u32 = 10_000;

/// Every check of the database, and the newest generation of `broker` that it knows.
pub async fn examine(settings: &Settings, broker: &str) -> (Vec<Check>, Option<Newest>) {
    const REACHABLE: &str = "database.reachable";
    let mut connection = match connect(&settings.database, Some(STATEMENT_TIMEOUT_MS)).await {
        Ok(connection) => connection,
        Err(error) => {
            let remedy = "start it, or mend database.url (`keylane settings` shows it)";
            return (vec![Check::failure(REACHABLE, format!("{error:#}"), remedy)], None);
        }
    };
    let server = match server(&mut connection).await {
        Ok(server) => server,
        Err(error) => {
            let remedy = "connect with psql and see whether it answers";
            return (vec![Check::failure(REACHABLE, chain(&error), remedy)], None);
        }
    };
    let connected = format!("{} as {}", server.database, server.role);
    let mut checks = vec![Check::ok(REACHABLE, connected), version(&server)];
    checks.extend(durability(&server));
    checks.push(isolation(&server));
    checks.push(connections(&server, settings.database.connections_max.get()));
    let (migrations, migrated) = migrations(&mut connection).await;
    checks.push(migrations);
    let newest = if migrated {
        checks.push(privileges(&mut connection, &server.role).await);
        checks.extend(turns(&mut connection).await);
        newest(&mut connection, broker).await.ok().flatten()
    } else {
        None
    };
    checks.extend(entities(&mut connection, settings).await);
    (checks, newest)
}

/// What the server says about itself.
#[derive(Debug, Clone, FromRow)]
struct Server {
    database: String,
    role: String,
    version: String,
    version_number: i32,
    synchronous_commit: String,
    synchronous_standby_names: String,
    fsync: String,
    isolation: String,
    connections_max: i32,
    connections_reserved: i32,
    role_connections_max: i32,
    replicas: i64,
}

async fn server(connection: &mut PgConnection) -> Result<Server, sqlx::Error> {
    const SQL: &str = "
        select current_database()::text as database, current_user::text as role,
               current_setting('server_version') as version,
               current_setting('server_version_num')::integer as version_number,
               current_setting('synchronous_commit') as synchronous_commit,
               current_setting('synchronous_standby_names') as synchronous_standby_names,
               current_setting('fsync') as fsync,
               current_setting('default_transaction_isolation') as isolation,
               current_setting('max_connections')::integer as connections_max,
               current_setting('superuser_reserved_connections')::integer as connections_reserved,
               (select rolconnlimit from pg_roles where rolname = current_user)
                   as role_connections_max,
               (select count(*) from pg_stat_replication) as replicas";
    sqlx::query_as(SQL).fetch_one(connection).await
}

fn version(server: &Server) -> Check {
    const NAME: &str = "database.version";
    let found = format!("PostgreSQL {}", server.version);
    if server.version_number / 10_000 >= VERSION_MIN {
        return Check::ok(NAME, found);
    }
    Check::failure(NAME, found, format!("take PostgreSQL {VERSION_MIN} or newer"))
}

/// Whether a commit that was acknowledged stays.
fn durability(server: &Server) -> Vec<Check> {
    const COMMIT: &str = "database.synchronous_commit";
    const STANDBYS: &str = "database.synchronous_standbys";
    let level = server.synchronous_commit.as_str();
    let commit = if matches!(level, "off" | "local") {
        Check::failure(
            COMMIT,
            format!(
                "synchronous_commit is {level}: a crash can lose writes that were acknowledged"
            ),
            format!("alter role \"{}\" set synchronous_commit = on", server.role),
        )
    } else if server.fsync != "on" {
        Check::warning(
            COMMIT,
            format!("synchronous_commit is {level}, but fsync is {}", server.fsync),
            "set fsync = on wherever a power cut may happen",
        )
    } else {
        Check::ok(COMMIT, format!("synchronous_commit is {level}"))
    };
    let (names, replicas) = (&server.synchronous_standby_names, server.replicas);
    let standbys = if names.is_empty() && replicas > 0 {
        Check::warning(
            STANDBYS,
            format!(
                "{replicas} replicas, none of them synchronous: a failover can lose writes \
                     that were acknowledged"
            ),
            "set synchronous_standby_names, or never fail over to a replica that is behind",
        )
    } else if names.is_empty() {
        Check::ok(STANDBYS, "no replicas")
    } else {
        Check::ok(STANDBYS, format!("synchronous_standby_names is {names}"))
    };
    vec![commit, standbys]
}

/// Only to be known: every transaction names its own level.
fn isolation(server: &Server) -> Check {
    let level = &server.isolation;
    let note = if level == "read committed" { "" } else { "; keylane's own are read committed" };
    Check::ok("database.isolation", format!("transactions are {level} by default{note}"))
}

fn connections(server: &Server, wanted: u32) -> Check {
    const NAME: &str = "database.connections";
    let free = i64::from(server.connections_max) - i64::from(server.connections_reserved);
    let role = i64::from(server.role_connections_max);
    // A limit of -1 is none.
    let most = if role >= 0 { free.min(role) } else { free };
    let found = format!("a worker takes up to {wanted}, the role may have {most}");
    if i64::from(wanted) > most {
        let remedy = "lower database.connections_max, or raise max_connections (or the role's \
                      connection limit)";
        return Check::failure(NAME, found, remedy);
    }
    Check::ok(NAME, found)
}

async fn migrations(connection: &mut PgConnection) -> (Check, bool) {
    const NAME: &str = "database.migrations";
    match migrate::pending(connection).await {
        Ok(false) => (Check::ok(NAME, "all applied"), true),
        Ok(true) => (
            Check::failure(NAME, "schema keylane is not up to date", "run `keylane migrate`"),
            false,
        ),
        Err(error) => {
            let remedy = "give the role usage on schema keylane (docs/PERMISSIONS.md)";
            (Check::failure(NAME, chain(&error), remedy), false)
        }
    }
}

/// What a worker does with each of keylane's tables.
const NEEDED: [(&str, &str); 11] = [
    ("ledger", "select, insert"),
    ("ledger_parts", "select, insert, delete"),
    ("dead_letters", "select, insert, update"),
    ("partitions", "select, insert, update"),
    ("generations", "select, insert, update"),
    ("turns", "select, insert, update"),
    ("routing", "select, insert, update"),
    ("parked_keys", "select, insert, update, delete"),
    ("hot_keys", "select, insert, delete"),
    ("operator_actions", "select, insert"),
    ("migrations", "select"),
];

async fn privileges(connection: &mut PgConnection, role: &str) -> Check {
    const NAME: &str = "database.privileges";
    const SQL: &str = "
        select has_table_privilege('keylane.' || quote_ident(name), privilege)
          from unnest($1::text[], $2::text[]) with ordinality as needed (name, privilege, place)
         order by place";
    // Parts are made and dropped by the worker, and only an owner may do that.
    const OWNER: &str = "
        select has_schema_privilege('keylane', 'create')
           and pg_has_role(relowner, 'usage')
          from pg_class where oid = 'keylane.ledger'::regclass";
    let needed: Vec<(&str, &str)> = NEEDED
        .iter()
        .flat_map(|(table, list)| list.split(", ").map(|privilege| (*table, privilege)))
        .collect();
    let (tables, wanted): (Vec<&str>, Vec<&str>) = needed.iter().copied().unzip();
    let held: Result<Vec<bool>, sqlx::Error> =
        sqlx::query_scalar(SQL).bind(tables).bind(wanted).fetch_all(&mut *connection).await;
    let owner: Result<bool, sqlx::Error> = sqlx::query_scalar(OWNER).fetch_one(connection).await;
    let (held, owner) = match (held, owner) {
        (Ok(held), Ok(owner)) => (held, owner),
        (Err(error), _) | (_, Err(error)) => {
            let remedy = format!("grant usage on schema keylane to \"{role}\"");
            return Check::failure(NAME, chain(&error), remedy);
        }
    };
    let held: BTreeSet<(&str, &str)> =
        needed.into_iter().zip(held).filter_map(|(needed, held)| held.then_some(needed)).collect();
    let missing = grants(&held, role);
    if !missing.is_empty() {
        let found = format!("{role} cannot be a worker: it lacks privileges on schema keylane");
        return Check::failure(NAME, found, missing.join("; "));
    }
    if !owner {
        return Check::warning(
            NAME,
            format!("{role} does not own keylane.ledger: old write ids are never forgotten"),
            format!(
                "alter table keylane.ledger owner to \"{role}\"; grant create on schema keylane \
                 to \"{role}\""
            ),
        );
    }
    Check::ok(NAME, format!("{role} may do what a worker does"))
}

/// The statements that give a role what it lacks, one for each table.
fn grants(held: &BTreeSet<(&str, &str)>, role: &str) -> Vec<String> {
    let lacking = NEEDED.iter().filter_map(|(table, list)| {
        let lacking: Vec<&str> =
            list.split(", ").filter(|privilege| !held.contains(&(*table, *privilege))).collect();
        (!lacking.is_empty())
            .then(|| format!("grant {} on keylane.{table} to \"{role}\"", lacking.join(", ")))
    });
    lacking.collect()
}

async fn turns(connection: &mut PgConnection) -> Vec<Check> {
    match routing::read(connection).await {
        Ok(found) => super::routing::examine(found.as_ref()),
        Err(error) => {
            let remedy = "give the role select on the tables of schema keylane";
            vec![Check::skipped("routing.turns", chain(&error), remedy)]
        }
    }
}

async fn newest(
    connection: &mut PgConnection,
    broker: &str,
) -> Result<Option<Newest>, sqlx::Error> {
    const SQL: &str = "
        select generation, partitions, state from keylane.generations
         where broker = $1 and state = 'open'
         order by generation desc limit 1";
    let newest: Option<(i32, i32, String)> =
        sqlx::query_as(SQL).bind(broker).fetch_optional(connection).await?;
    Ok(newest.map(|(generation, partitions, state)| Newest { generation, partitions, state }))
}

async fn entities(connection: &mut PgConnection, settings: &Settings) -> Vec<Check> {
    const NAME: &str = "entities";
    if settings.entities.is_empty() {
        let remedy = "add [entities.<name>] with `table` and `key` to the settings";
        return vec![Check::failure(NAME, "none is configured", remedy)];
    }
    match catalogue::load(connection, &settings.entities).await {
        Ok(entities) => {
            let names: Vec<&str> = entities.keys().map(String::as_str).collect();
            vec![Check::ok(NAME, names.join(", "))]
        }
        Err(CatalogueError::Entities(troubles)) => troubles
            .into_iter()
            .map(|trouble| {
                let found = format!("{}: {}", trouble.entity, trouble.problem);
                Check::failure(NAME, found, trouble.remedy)
            })
            .collect(),
        Err(error @ CatalogueError::Database(_)) => {
            vec![Check::failure(NAME, chain(&error), "see whether the database answers")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn server() -> Server {
        Server {
            database: "shop".into(),
            role: "keylane".into(),
            version: "15.18".into(),
            version_number: 150_018,
            synchronous_commit: "on".into(),
            synchronous_standby_names: String::new(),
            fsync: "on".into(),
            isolation: "read committed".into(),
            connections_max: 100,
            connections_reserved: 3,
            role_connections_max: -1,
            replicas: 0,
        }
    }

    #[test]
    fn a_server_that_may_lose_acknowledged_writes_is_named() {
        let table: [(&str, &str, i64, [Status; 2]); 7] = [
            ("on", "", 0, [Status::Ok, Status::Ok]),
            ("off", "", 0, [Status::Failure, Status::Ok]),
            ("local", "a", 1, [Status::Failure, Status::Ok]),
            ("on", "", 2, [Status::Ok, Status::Warning]),
            ("on", "a", 2, [Status::Ok, Status::Ok]),
            ("remote_apply", "a", 2, [Status::Ok, Status::Ok]),
            ("remote_write", "", 1, [Status::Ok, Status::Warning]),
        ];
        for (commit, names, replicas, expected) in table {
            let server = Server {
                synchronous_commit: commit.into(),
                synchronous_standby_names: names.into(),
                replicas,
                ..server()
            };
            let found: Vec<Status> = durability(&server).iter().map(|check| check.status).collect();
            assert_eq!(found, expected, "{commit} {names} {replicas}");
        }
    }

    #[test]
    fn what_a_role_lacks_is_a_statement_for_each_table() {
        let all = |(table, list): &(&'static str, &'static str)| {
            list.split(", ").map(|privilege| (*table, privilege)).collect::<Vec<_>>()
        };
        let mut held: BTreeSet<(&str, &str)> = NEEDED.iter().flat_map(all).collect();
        assert!(grants(&held, "r").is_empty());
        held.remove(&("ledger_parts", "insert"));
        held.remove(&("ledger_parts", "delete"));
        assert_eq!(grants(&held, "r"), ["grant insert, delete on keylane.ledger_parts to \"r\""]);
    }

    #[test]
    fn version_and_connections_have_their_limits() {
        for (number, status) in
            [(120_022, Status::Failure), (130_000, Status::Ok), (180_001, Status::Ok)]
        {
            let server = Server { version_number: number, ..server() };
            assert_eq!(version(&server).status, status, "{number}");
        }
        for (role, wanted, status) in
            [(-1, 97, Status::Ok), (-1, 98, Status::Failure), (10, 11, Status::Failure)]
        {
            let server = Server { role_connections_max: role, ..server() };
            assert_eq!(connections(&server, wanted).status, status, "{role} {wanted}");
        }
    }
}
