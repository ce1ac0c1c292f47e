//! Rooms whose history fails: how often, in a row, so that one of them does not keep all others from being heard.
//!
//! # Why it is kept
//! A program that only sends is another process each time, and would begin to count anew: it would never send again.

use std::collections::BTreeMap;

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use mx_transport::RequestError;
use ruma::{OwnedRoomId, RoomId};

use crate::{Error, Orchestrator, Result, machine::Ending};

const HISTORIES: Family = Family::new("histories").passing();

/// So many attempts may fail, each with a sync of its own.
const ATTEMPTS: u32 = 5;

/// How many rooms are counted.
const MOST: usize = 1_000;

type Failures = BTreeMap<OwnedRoomId, u32>;

fn id() -> RecordId {
    RecordId::named(HISTORIES, &[], "")
}

async fn committed(store: &PickleStore) -> Result<Failures> {
    Ok(store.record(&id()).await?.unwrap_or_default())
}

/// What there is was taken.
pub(super) async fn clear(unit: &Unit) -> Result<()> {
    if unit.get::<Failures>(&id()).await?.is_some() {
        unit.delete(&id())?;
    }
    Ok(())
}

/// It may be that one room and nothing else.
fn is_of_the_room(error: &Error) -> bool {
    match error {
        Error::Request(RequestError::Transport(_) | RequestError::Decode { .. }) => true,
        Error::Request(error) => error.status().is_some_and(|status| status.is_server_error()),
        _ => false,
    }
}

impl Orchestrator {
    /// A room's history could not be asked for. `Ok`: it failed for long enough, and is a gap.
    ///
    /// # Errors
    /// With what it failed, while it is worth another sync; of the store.
    pub(super) async fn history_failed(&self, room: &RoomId, error: Error) -> Result<()> {
        if !is_of_the_room(&error) {
            return Err(error);
        }
        let mut failures = committed(self.store()).await?;
        let count = failures.get(room).copied().unwrap_or_default() + 1;
        if count >= ATTEMPTS {
            tracing::warn!(
                code = error.code(),
                "a room's history failed again and again: what a sync left out of it is passed over"
            );
            return Ok(());
        }
        if failures.len() < MOST || failures.contains_key(room) {
            failures.insert(room.to_owned(), count);
        }
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.put(&id(), &failures)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await?;
        Err(error)
    }
}
