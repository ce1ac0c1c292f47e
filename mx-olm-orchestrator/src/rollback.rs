//! A store that was set back, or runs twice: told by an event of this device that the store has not sent yet.
//!
//! # Why
//! A restored backup or a copied machine holds ratchets that were used since. Whoever goes on with it encrypts other
//! messages with the same keys. A message of this very device whose place in its session is one that the store has not
//! come to is proof: only another copy can have made it. Sends are refused from then on, until somebody who knows what
//! happened says so; receiving goes on. One-time keys that collide are the other sign (`keys/conflict.rs`).

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use crate::{Error, Orchestrator, Result, keys::conflict, machine::Ending};

const ROLLBACK: Family = Family::new("rollback");

/// An event of ours that we have not sent.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Rollback {
    room: OwnedRoomId,
    event: OwnedEventId,
    /// When it was seen first, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
}

impl Rollback {
    pub(crate) fn error(&self) -> Error {
        Error::StoreRolledBack {
            room: self.room.clone(),
            event: self.event.clone(),
        }
    }
}

fn id() -> RecordId {
    RecordId::named(ROLLBACK, &[], "")
}

/// Look at an event that this device's key opened and that says to be its own: whether the store has sent it.
pub(crate) async fn look_at_own(
    machine: &OlmMachine,
    unit: &Unit,
    room: &RoomId,
    session: &str,
    index: u32,
    event: &OwnedEventId,
    now_ms: u64,
) -> Result<()> {
    let outbound = machine.store().get_outbound_group_session(room).await?;
    let Some(outbound) = outbound.filter(|outbound| outbound.session_id() == session) else {
        return Ok(());
    };
    if index < outbound.message_index().await || unit.get::<Rollback>(&id()).await?.is_some() {
        return Ok(());
    }
    tracing::error!("another copy of this device's store has sent an event: nothing is sent any more");
    machine.discard_room_key(room).await?;
    let rollback = Rollback {
        room: room.to_owned(),
        event: event.clone(),
        since_ms: now_ms,
    };
    Ok(unit.put(&id(), &rollback)?)
}

impl Orchestrator {
    pub(crate) async fn rollback(&self) -> Result<Option<Rollback>> {
        Ok(self.store().record(&id()).await?)
    }

    /// # Errors
    /// [`Error::StoreRolledBack`] while it is not acknowledged; of the store.
    pub(crate) async fn refuse_after_rollback(&self) -> Result<()> {
        self.rollback().await?.map_or(Ok(()), |rollback| Err(rollback.error()))
    }

    /// Go on with this store after [`Error::StoreRolledBack`], because the other copy does not run any more: every room
    /// gets a new key before the next send. A new device is the cleaner way out: Olm sessions may be set back, too, and
    /// are renewed only when a peer cannot open what we send.
    ///
    /// # Errors
    /// Of the store.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn acknowledge_rollback(&self) -> Result<()> {
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    if unit.get::<Rollback>(&id()).await?.is_none() {
                        return Ok(Ending::Undo(()));
                    }
                    unit.delete(&id())?;
                    conflict::next_epoch(unit).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}
