//! The guard against replays: one row for each message that was ever decrypted, looked up and written for each new one.
//!
//! matrix-sdk-sqlite has none. What is to be seen is that a message costs the same after a thousand and after a million.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use mx_crypto_store::{Family, RecordId, Unit};

use super::{
    rounds::Subject,
    variant::{Home, Store, Variant},
};

const REPLAY: Family = Family::new("replay");
/// Messages of one room key.
const OF_A_SESSION: usize = 100;
/// Rows of one commit while the store is filled.
const BATCH: usize = 10_000;
/// Messages of one unit of work.
const OF_A_UNIT: u64 = 100;

/// A store with the places of so many messages.
pub(crate) struct Replays {
    store: Store,
    next: usize,
    _home: Home,
}

fn place(number: usize) -> RecordId {
    let session = format!("session {}", number / OF_A_SESSION);
    RecordId::named(
        REPLAY,
        &["!room:example.org", &session],
        &(number % OF_A_SESSION).to_string(),
    )
}

fn put(unit: &Unit, number: usize) -> anyhow::Result<()> {
    let event = format!("$an-event-id-of-the-usual-length-of-43-characte{number:08}");
    Ok(unit.put(
        &place(number),
        &(event, 1_700_000_000_000_u64, "the end of a signature, 32 bytes"),
    )?)
}

impl Replays {
    pub(crate) async fn new(variant: Variant, rows: usize) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = variant.open(&home).await?;
        let mut number = 0;
        while number < rows {
            let unit = store.begin().await?.context("no store of ours")?;
            let until = rows.min(number + BATCH);
            for number in number..until {
                put(&unit, number)?;
            }
            unit.commit().await?;
            number = until;
        }
        Ok(Self {
            store,
            next: rows,
            _home: home,
        })
    }
}

#[async_trait]
impl Subject for Replays {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let mut elapsed = Duration::ZERO;
        let mut left = iterations;
        while left > 0 {
            let unit = self.store.begin().await?.context("no store of ours")?;
            let started = Instant::now();
            let many = left.min(OF_A_UNIT);
            for _ in 0..many {
                let known: Option<(String, u64, String)> = unit.get(&place(self.next)).await?;
                anyhow::ensure!(known.is_none(), "nobody has sent it yet");
                put(&unit, self.next)?;
                self.next += 1;
            }
            elapsed += started.elapsed();
            left -= many;
            unit.commit().await?;
        }
        Ok(elapsed)
    }
}
