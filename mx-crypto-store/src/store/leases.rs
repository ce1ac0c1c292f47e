//! Leases, values of the engine's own, and the token of the last sync.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{PickleStore, Rows};
use crate::{Result, layout::Table};

#[derive(Serialize, Deserialize)]
struct Lease {
    holder: String,
    until_ms: u64,
    generation: u64,
}

impl PickleStore {
    /// Take, extend or fail to take a lease; its generation counts the holders.
    pub(super) async fn lease(&self, duration_ms: u32, key: &str, holder: &str) -> Result<Option<u64>> {
        let turn = self.turn().await?;
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let held: Option<Lease> = self.json(Table::Lease, &[], key).await?;
        let generation = match held {
            None => 1,
            Some(held) if held.holder == holder => held.generation,
            Some(held) if held.until_ms <= now_ms => held.generation + 1,
            Some(_) => return Ok(None),
        };
        let lease = Lease {
            holder: holder.to_owned(),
            until_ms: now_ms.saturating_add(duration_ms.into()),
            generation,
        };
        let mut rows = Rows::default();
        rows.json(self.row(Table::Lease, &[], key), &lease)?;
        self.write_in(turn, rows).await?;
        Ok(Some(generation))
    }

    pub(super) async fn custom_value(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self
            .plain(&self.row(Table::CustomValue, &[], key))
            .await?
            .map(|value| value.to_vec()))
    }

    pub(super) async fn put_custom_value(&self, key: &str, value: Vec<u8>) -> Result<()> {
        let mut rows = Rows::default();
        rows.bytes(self.row(Table::CustomValue, &[], key), value);
        self.write(rows).await
    }

    pub(super) async fn delete_custom_value(&self, key: &str) -> Result<()> {
        let mut rows = Rows::default();
        rows.delete(self.row(Table::CustomValue, &[], key));
        self.write(rows).await
    }

    pub(super) fn put_next_batch(&self, rows: &mut Rows, token: &str) -> Result<()> {
        rows.json(self.row(Table::NextBatch, &[], ""), token)
    }

    pub(super) async fn next_batch(&self) -> Result<Option<String>> {
        self.json(Table::NextBatch, &[], "").await
    }
}
