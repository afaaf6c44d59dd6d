//! The entities as the catalogue last described them, read again when a write knows better.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgPool;

use crate::core::entity::Entities;
use crate::core::failure::Failure;
use crate::postgres::{Blame, failure};
use crate::settings::EntitySettings;

use super::CatalogueError;

/// The current entities.
pub struct Catalogue {
    pool: PgPool,
    settings: BTreeMap<String, EntitySettings>,
    current: RwLock<Arc<Entities>>,
}

impl Catalogue {
    /// Reads the catalogue for the first time.
    pub async fn load(
        pool: PgPool,
        settings: BTreeMap<String, EntitySettings>,
    ) -> Result<Self, CatalogueError> {
        let entities = read(&pool, &settings).await?;
        Ok(Self { pool, settings, current: RwLock::new(Arc::new(entities)) })
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

async fn read(
    pool: &PgPool,
    settings: &BTreeMap<String, EntitySettings>,
) -> Result<Entities, CatalogueError> {
    let mut connection = pool.acquire().await.map_err(CatalogueError::Database)?;
    super::load(&mut connection, settings).await
}
