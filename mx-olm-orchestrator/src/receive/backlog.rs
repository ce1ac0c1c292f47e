//! Messages that syncs for sends passed by: from where they are asked for when somebody wants them.
//!
//! # Why
//! There is one token: the homeserver deletes to-device events when it comes back, so that a sync for a send moves it like
//! any other. What such a sync did not ask for is behind the token then. The token before the first of them is kept, in the
//! same unit of work, until the next sync that wants messages: that one goes on from the *kept* token, and so brings the
//! timelines of the whole time as one, in order, with its gaps found and filled as ever. What the syncs in between have
//! taken comes once more with it and is known: to-device events that are still in the homeserver's queue were decrypted
//! before, and who left in the meantime has ended the room's key already.

use std::collections::BTreeSet;

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use serde::{Deserialize, Serialize};

use crate::Result;

const BACKLOG: Family = Family::new("backlog").passing();

/// More departures than this are not remembered: a key that ends twice for one of them is no harm.
const MOST_DEPARTURES: usize = 1_000;

/// What was passed by.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// The token of the last sync that wanted messages.
    pub(crate) from: String,
    /// Events by which somebody left, for whom the room's key has ended.
    #[serde(default)]
    pub(crate) departures: BTreeSet<String>,
}

fn id() -> RecordId {
    RecordId::named(BACKLOG, &[], "")
}

impl Backlog {
    pub(crate) async fn committed(store: &PickleStore) -> Result<Option<Self>> {
        Ok(store.record(&id()).await?)
    }
}

/// A sync from `since` on left the messages where they are, and took these departures.
pub(super) async fn extend(unit: &Unit, since: &str, departures: BTreeSet<String>) -> Result<()> {
    let before: Option<Backlog> = unit.get(&id()).await?;
    let mut backlog = before.clone().unwrap_or_else(|| Backlog {
        from: since.to_owned(),
        departures: BTreeSet::new(),
    });
    let room_for = MOST_DEPARTURES.saturating_sub(backlog.departures.len());
    backlog.departures.extend(departures.into_iter().take(room_for));
    if before.as_ref() != Some(&backlog) {
        unit.put(&id(), &backlog)?;
    }
    Ok(())
}

/// Everything that was passed by is taken.
pub(super) fn clear(unit: &Unit) -> Result<()> {
    Ok(unit.delete(&id())?)
}
