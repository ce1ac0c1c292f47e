//! A store that was set back, or runs twice: told by an event of this device that the store has not sent yet.
//!
//! # Why
//! A restored backup or a copied machine holds ratchets that were used since. Whoever goes on with it encrypts other
//! messages with the same keys. A message of this very device whose place in its session is one that the store has not
//! come to is proof: only another copy can have made it. So is one whose room key the store does not have. Sends are refused from then on, until somebody who knows what
//! happened says so; receiving goes on. One-time keys that collide are the other sign (`keys/conflict.rs`).

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{Family, RecordId, Retired, Unit};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};

use crate::{Error, Orchestrator, Result, keys::conflict, machine::Ending};

const ROLLBACK: Family = Family::new("rollback");
/// As much as the clocks of a homeserver and of this machine may differ, in milliseconds.
const CLOCKS_DIFFER_MS: u64 = 10 * 60 * 1000;
/// As old as an event may be that proves something, in milliseconds: 30 days.
const OLDEST_PROOF_MS: u64 = 30 * 24 * 60 * 60 * 1000;

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

/// When somebody said last that the other copy does not run any more.
fn acknowledged() -> RecordId {
    RecordId::named(ROLLBACK, &[], "acknowledged_ms")
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
    // What a copy did with a key that was given up is acknowledged, and comes again with every look at the room's messages.
    if index < outbound.message_index().await || conflict::is_over(unit, room).await? {
        return Ok(());
    }
    note(machine, unit, room, event, now_ms).await
}

/// An event that says to be of this very device, and whose room key is not here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unopened<'e> {
    pub(crate) room: &'e RoomId,
    pub(crate) event: &'e OwnedEventId,
    pub(crate) origin_server_ts: u64,
}

/// Look at an event that says to be of this very device, and whose room key is not here: the store has each that it made. That
/// it is ours, only the homeserver says, which can keep us from sending anyway.
///
/// What is from before the device was here, or taken over, proves nothing; nor what is from before keys were retired, or before
/// somebody said that the other copy does not run any more.
pub(crate) async fn look_at_unopened(
    machine: &OlmMachine,
    unit: &Unit,
    unopened: Unopened<'_>,
    now_ms: u64,
) -> Result<()> {
    let since_ms = u64::from(machine.device_creation_time().0).saturating_add(CLOCKS_DIFFER_MS);
    let retired_ms = unit.get::<u64>(&Retired::noted()).await?.unwrap_or_default();
    let acknowledged_ms = unit.get::<u64>(&acknowledged()).await?.unwrap_or_default();
    let since_ms = since_ms
        .max(retired_ms.max(acknowledged_ms).saturating_add(CLOCKS_DIFFER_MS))
        .max(now_ms.saturating_sub(OLDEST_PROOF_MS));
    if unopened.origin_server_ts < since_ms {
        return Ok(());
    }
    note(machine, unit, unopened.room, unopened.event, now_ms).await
}

async fn note(machine: &OlmMachine, unit: &Unit, room: &RoomId, event: &OwnedEventId, now_ms: u64) -> Result<()> {
    if unit.get::<Rollback>(&id()).await?.is_some() {
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

/// Whether nobody is answered: the Olm sessions of a store that was set back, or runs twice, were used since.
pub(crate) async fn is_silent(unit: &Unit) -> Result<bool> {
    Ok(unit.get::<Rollback>(&id()).await?.is_some() || conflict::is_noted(unit).await?)
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
    /// ```no_run
    /// # use mx_olm_orchestrator::{Error, Orchestrator, Outgoing};
    /// # async fn example(device: Orchestrator, outgoing: Outgoing) -> Result<(), Error> {
    /// if let Err(Error::StoreRolledBack { .. }) = device.send(outgoing.clone()).await {
    ///     // An operator has made sure that the other copy was destroyed.
    ///     device.acknowledge_rollback().await?;
    ///     device.send(outgoing).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn acknowledge_rollback(&self) -> Result<()> {
        let now_ms = self.now_ms();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    if unit.get::<Rollback>(&id()).await?.is_none() {
                        return Ok(Ending::Undo(()));
                    }
                    unit.delete(&id())?;
                    unit.put(&acknowledged(), &now_ms)?;
                    conflict::next_epoch(unit).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}
