//! Who has signed in? Rows that come, are touched and go; what is in them is their owner's business.

use sqlx::any::AnyRow;

use crate::registry::definition::Digest;
use crate::time::UnixSeconds;

use super::{Store, StoreError, away, bounded, number, signed, text};

/// A row. What the browser holds is never kept, only its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Digest of the secret that the browser holds.
    pub id: Digest,
    /// What it is for; rows of one purpose are not found as another.
    pub purpose: Box<str>,
    /// JSON of whoever made it.
    pub body: Box<str>,
    /// When it was made.
    pub created: UnixSeconds,
    /// When it was last used.
    pub touched: UnixSeconds,
    /// When it ends, used or not.
    pub expires: UnixSeconds,
}

impl Store {
    /// Adds a row.
    ///
    /// # Errors
    /// [`StoreError::Stale`] when the id is taken, [`StoreError::Away`].
    pub async fn create_sign_in(&self, row: &SignIn) -> Result<(), StoreError> {
        bounded(async {
            let insert = sqlx::query(
                "INSERT INTO sign_ins (id, purpose, body, created, touched, expires) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (id) DO NOTHING",
            );
            let insert = insert.bind(row.id.to_string()).bind(&*row.purpose).bind(&*row.body);
            let insert = insert.bind(signed(row.created.0)).bind(signed(row.touched.0)).bind(signed(row.expires.0));
            let inserted = insert.execute(&self.pool).await.map_err(|error| away(&error))?;
            if inserted.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Stale) }
        })
        .await
    }

    /// The row with this id and purpose that has not expired at `now`.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn sign_in(&self, id: Digest, purpose: &str, now: UnixSeconds) -> Result<Option<SignIn>, StoreError> {
        bounded(async {
            let query = sqlx::query("SELECT * FROM sign_ins WHERE id = $1 AND purpose = $2 AND expires > $3");
            let query = query.bind(id.to_string()).bind(purpose).bind(signed(now.0));
            let row = query.fetch_optional(&self.pool).await.map_err(|error| away(&error))?;
            row.as_ref().map(sign_in).transpose()
        })
        .await
    }

    /// Notes that a row was used; whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn touch_sign_in(&self, id: Digest, purpose: &str, now: UnixSeconds) -> Result<bool, StoreError> {
        bounded(async {
            let update =
                sqlx::query("UPDATE sign_ins SET touched = $3 WHERE id = $1 AND purpose = $2 AND expires > $3");
            let update = update.bind(id.to_string()).bind(purpose).bind(signed(now.0));
            let updated = update.execute(&self.pool).await.map_err(|error| away(&error))?;
            Ok(updated.rows_affected() == 1)
        })
        .await
    }

    /// Takes a row out; whether it was there. Of two callers at once only one is told so: what must be used once is.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn delete_sign_in(&self, id: Digest, purpose: &str) -> Result<bool, StoreError> {
        bounded(async {
            let delete = sqlx::query("DELETE FROM sign_ins WHERE id = $1 AND purpose = $2");
            let delete = delete.bind(id.to_string()).bind(purpose);
            let deleted = delete.execute(&self.pool).await.map_err(|error| away(&error))?;
            Ok(deleted.rows_affected() == 1)
        })
        .await
    }

    /// Takes out all rows of a purpose but the `rows_max` that were used last; how many that were.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn keep_sign_ins(&self, purpose: &str, rows_max: usize) -> Result<u64, StoreError> {
        bounded(async {
            let delete = sqlx::query(
                "DELETE FROM sign_ins WHERE purpose = $1 AND touched < (SELECT MIN(touched) FROM \
                 (SELECT touched FROM sign_ins WHERE purpose = $1 ORDER BY touched DESC LIMIT $2) AS latest)",
            );
            let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
            let deleted = delete.bind(purpose).bind(rows_max).execute(&self.pool).await;
            Ok(deleted.map_err(|error| away(&error))?.rows_affected())
        })
        .await
    }

    /// Takes out what has expired at `now`; how many rows that were.
    ///
    /// # Errors
    /// [`StoreError::Away`].
    pub async fn purge_sign_ins(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        bounded(async {
            let delete = sqlx::query("DELETE FROM sign_ins WHERE expires <= $1").bind(signed(now.0));
            Ok(delete.execute(&self.pool).await.map_err(|error| away(&error))?.rows_affected())
        })
        .await
    }
}

fn sign_in(row: &AnyRow) -> Result<SignIn, StoreError> {
    let when = |column| number(row, column).map(UnixSeconds);
    Ok(SignIn {
        id: Digest::parse(&text(row, "id")?).ok_or(StoreError::Corrupt)?,
        purpose: text(row, "purpose")?.into(),
        body: text(row, "body")?.into(),
        created: when("created")?,
        touched: when("touched")?,
        expires: when("expires")?,
    })
}
