//! The entities as the catalogue last described them: read once the database is there, and again
//! when a write knows better.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::core::entity::Entities;
use crate::core::failure::Failure;
use crate::postgres::{Blame, failure, migrate};
use crate::settings::EntitySettings;

use super::CatalogueError;

/// Pause before a database is tried again that is away at the start.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest first read, connecting included.
const FIRST_READ_MAX: Duration = Duration::from_secs(10);

/// The current entities.
pub struct Catalogue {
    pool: PgPool,
    settings: BTreeMap<String, EntitySettings>,
    current: RwLock<Arc<Entities>>,
    /// Why nothing was read yet; `None` once it was, and then for good.
    missing: watch::Sender<Option<String>>,
}

impl Catalogue {
    /// A catalogue that knows nothing yet; [`Catalogue::read_first`] must run.
    pub fn unread(pool: PgPool, settings: BTreeMap<String, EntitySettings>) -> Self {
        let missing = Some("the entities are not read yet".to_owned());
        Self { pool, settings, current: RwLock::default(), missing: watch::Sender::new(missing) }
    }

    /// Reads the catalogue for the first time, as soon as the database is there. An error says
    /// what a person has to mend: waiting would not.
    pub async fn read_first(&self) -> anyhow::Result<()> {
        let mut said = None;
        loop {
            let read = timeout(FIRST_READ_MAX, self.first());
            let why = match read.await {
                Ok(Ok(())) => break,
                Ok(Err(failure)) if passes(&failure) => format!("{failure:#}"),
                Ok(Err(failure)) => return Err(failure),
                Err(_elapsed) => format!("no answer within {FIRST_READ_MAX:?}"),
            };
            // Once for each kind of trouble, not once for each try.
            if said.as_ref() != Some(&why) {
                warn!("Waiting for the database: {why}");
                said = Some(why.clone());
            }
            self.missing.send_replace(Some(why));
            sleep(AGAIN_AFTER).await;
        }
        self.missing.send_replace(None);
        info!(entities = self.settings.len(), "Entities read");
        Ok(())
    }

    /// Not through the pool, which keeps to itself why it has no connection.
    async fn first(&self) -> anyhow::Result<()> {
        let options = self.pool.connect_options();
        let connected = PgConnection::connect_with(&options).await;
        let mut connection = connected.context("connect to the database")?;
        let pending = migrate::pending(&mut connection).await.context("look at the migrations")?;
        if pending {
            bail!("the database has not all tables of this version: run `keylane migrate`");
        }
        let entities = super::load(&mut connection, &self.settings).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(entities);
        // A goodbye that fails changes nothing about what was read.
        drop(connection.close().await);
        Ok(())
    }

    /// Why the entities are not known yet; `None` when they are.
    pub fn missing(&self) -> Option<String> {
        self.missing.borrow().clone()
    }

    /// Waits until the entities are known; `false` if `drain` came first.
    pub async fn known_before(&self, drain: &CancellationToken) -> bool {
        let mut missing = self.missing.subscribe();
        tokio::select! {
            known = missing.wait_for(Option::is_none) => known.is_ok(),
            () = drain.cancelled() => false,
        }
    }

    /// The entities as they were last read.
    pub fn entities(&self) -> Arc<Entities> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the catalogue again. Entities that did not change stay the very same, so that their
    /// prepared statements do too.
    pub async fn refresh(&self) -> Result<Arc<Entities>, Failure> {
        let mut fresh = match read(&self.pool, &self.settings).await {
            Ok(fresh) => fresh,
            Err(CatalogueError::Database(error)) => return Err(failure(&error, Blame::Nobody)),
            Err(troubles @ CatalogueError::Entities(_)) => {
                return Err(Failure::Unforeseen(troubles.to_string()));
            }
        };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        for (name, entity) in &mut fresh {
            if let Some(known) = current.get(name).filter(|known| *known == entity) {
                *entity = Arc::clone(known);
            }
        }
        *current = Arc::new(fresh);
        Ok(Arc::clone(&current))
    }
}

/// Whether it is the database that is away, which passes by itself.
fn passes(failure: &anyhow::Error) -> bool {
    let database = failure.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>());
    database.is_some_and(|error| {
        !matches!(crate::postgres::failure(error, Blame::Nobody), Failure::Unforeseen(_))
    })
}

async fn read(
    pool: &PgPool,
    settings: &BTreeMap<String, EntitySettings>,
) -> Result<Entities, CatalogueError> {
    let mut connection = pool.acquire().await.map_err(CatalogueError::Database)?;
    super::load(&mut connection, settings).await
}
