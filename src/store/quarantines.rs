//! What is stopped? Rows that are put in place, taken out, and read as a whole when something has changed.

use crate::policy::quarantine::Quarantine;
use crate::time::UnixSeconds;

use super::{CHANNEL, Store, StoreError, away, bodies, body, bounded, number, signed};

impl Store {
    /// Everything that is stopped at `now`, and the number of the last change; none when nothing at all has changed in the
    /// store since `seq`.
    ///
    /// # Errors
    /// [`StoreError::Away`] and [`StoreError::Corrupt`].
    pub async fn quarantines(
        &self,
        seq: Option<u64>,
        now: UnixSeconds,
    ) -> Result<Option<(u64, Vec<Quarantine>)>, StoreError> {
        bounded(async {
            // The number is read first: what is written meanwhile is read again with the next look.
            let last = sqlx::query("SELECT seq FROM clock WHERE id = 1").fetch_one(&self.pool).await;
            let last = number(&last.map_err(|error| away(&error))?, "seq")?;
            if seq == Some(last) {
                return Ok(None);
            }
            let rows = sqlx::query("SELECT body FROM quarantines WHERE expires > $1 ORDER BY id").bind(signed(now.0));
            let rows = rows.fetch_all(&self.pool).await.map_err(|error| away(&error))?;
            Ok(Some((last, bodies(&rows)?)))
        })
        .await
    }

    /// Puts a row in place of the one about the same, takes out those that have expired at `now`, and tells other gateways.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn put_quarantine(&self, quarantine: &Quarantine, now: UnixSeconds) -> Result<(), StoreError> {
        let expires = quarantine.until.map_or(i64::MAX, |until| signed(until.0));
        let put = "INSERT INTO quarantines (id, seq, expires, body) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (id) DO UPDATE SET seq = $2, expires = $3, body = $4";
        bounded(async {
            let (mut tx, seq) = self.change().await?;
            let delete = sqlx::query("DELETE FROM quarantines WHERE expires <= $1").bind(signed(now.0));
            delete.execute(&mut *tx).await.map_err(|error| away(&error))?;
            let put = sqlx::query(put).bind(&*quarantine.id).bind(signed(seq)).bind(expires).bind(body(quarantine)?);
            put.execute(&mut *tx).await.map_err(|error| away(&error))?;
            self.tell(tx, seq).await
        })
        .await
    }

    /// Takes a row out, if it is there, and tells other gateways.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn delete_quarantine(&self, id: &str) -> Result<(), StoreError> {
        bounded(async {
            let (mut tx, seq) = self.change().await?;
            let delete = sqlx::query("DELETE FROM quarantines WHERE id = $1").bind(id);
            delete.execute(&mut *tx).await.map_err(|error| away(&error))?;
            self.tell(tx, seq).await
        })
        .await
    }

    /// Begins a change, after every other one.
    async fn change(&self) -> Result<(sqlx::Transaction<'_, sqlx::Any>, u64), StoreError> {
        let mut tx = self.pool.begin().await.map_err(|error| away(&error))?;
        let clock = sqlx::query("UPDATE clock SET seq = seq + 1 WHERE id = 1 RETURNING seq");
        let seq = number(&clock.fetch_one(&mut *tx).await.map_err(|error| away(&error))?, "seq")?;
        Ok((tx, seq))
    }

    async fn tell(&self, mut tx: sqlx::Transaction<'_, sqlx::Any>, seq: u64) -> Result<(), StoreError> {
        if self.postgres.is_some() {
            let notify = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(seq.to_string());
            notify.execute(&mut *tx).await.map_err(|error| away(&error))?;
        }
        tx.commit().await.map_err(|error| away(&error))
    }
}
