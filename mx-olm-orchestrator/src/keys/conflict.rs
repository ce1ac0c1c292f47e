//! A one-time key that the homeserver knows with another content: two stores publish as one device, as after a
//! restored backup or a copied disk.
//!
//! # Why
//! The engine uploads the same keys again and again then (reference: engine, gap B17). More than the uploads is at
//! stake: whoever runs the other store uses the same ratchets, so that what we send could be sent with a key that was
//! used. Sends are therefore refused until somebody who knows what happened says so; receiving goes on.

use std::collections::BTreeSet;

use mx_crypto_store::{Family, RecordId, Unit};
use mx_transport::RequestError;
use ruma::{RoomId, api::client::keys::upload_keys};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{SETTINGS, Upkeep};
use crate::{Error, Orchestrator, Result, machine::Ending};

const EPOCHS: Family = Family::new("room-key-epochs");

/// How long after an upload that collided the next one is tried, in milliseconds.
const PAUSE_MS: u64 = 5 * 60_000;

/// What is remembered of a conflict.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The keys that the homeserver named. Empty: it named none.
    pub(crate) ids: BTreeSet<String>,
    /// When it was seen first, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// When an upload was tried last.
    pub(crate) tried_ms: u64,
    /// The operator knows: colliding keys are passed over.
    pub(crate) acknowledged: bool,
}

impl Conflict {
    pub(crate) fn error(&self) -> Error {
        Error::OneTimeKeyConflict { ids: self.ids.clone() }
    }

    pub(super) const fn is_pausing(&self, now_ms: u64) -> bool {
        !self.acknowledged && now_ms.abs_diff(self.tried_ms) < PAUSE_MS
    }
}

fn id() -> RecordId {
    RecordId::named(SETTINGS, &[], "one-time-key-conflict")
}

fn epoch_id() -> RecordId {
    RecordId::named(SETTINGS, &[], "room-key-epoch")
}

/// What a refusal of an upload says of our one-time keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Collision {
    /// The homeserver has the very same key.
    Same,
    /// It has another key under this id.
    Differs(String),
    /// It may be a collision, in words that are not Synapse's.
    Unreadable,
}

/// Read the refusal of an upload. `None`: it is about something else.
pub(super) fn collision(error: &RequestError, upload: &upload_keys::v3::Request) -> Option<Collision> {
    let RequestError::Api {
        status,
        errcode: Some(errcode),
        message,
        ..
    } = error
    else {
        return None;
    };
    if status.as_u16() != 400 || upload.one_time_keys.is_empty() {
        return None;
    }
    let named = message
        .split_once("One time key ")
        .and_then(|(_, rest)| rest.split_once(" already exists"));
    let Some((key_id, rest)) = named else {
        let vague = matches!(errcode.as_str(), "M_UNKNOWN" | "M_INVALID_PARAM");
        return vague.then_some(Collision::Unreadable);
    };
    let Some((_, ours)) = upload.one_time_keys.iter().find(|(id, _)| id.as_str() == key_id) else {
        return Some(Collision::Unreadable);
    };
    let old = rest
        .split_once("Old key: ")
        .map(|(_, old)| old.split_once("; new key: ").map_or(old, |(old, _)| old));
    let public = |json: &str| {
        Some(
            serde_json::from_str::<Value>(json)
                .ok()?
                .get("key")?
                .as_str()?
                .to_owned(),
        )
    };
    match (old.and_then(public), public(ours.json().get())) {
        (Some(old), Some(ours)) if old == ours => Some(Collision::Same),
        _ => Some(Collision::Differs(key_id.chars().take(100).collect())),
    }
}

impl Orchestrator {
    /// The conflict that is not over yet.
    pub(crate) async fn conflict(&self) -> Result<Option<Conflict>> {
        Ok(self.store().record(&id()).await?)
    }

    /// # Errors
    /// [`Error::OneTimeKeyConflict`] while one is not acknowledged; of the store.
    pub(crate) async fn refuse_in_conflict(&self) -> Result<()> {
        match self.conflict().await? {
            Some(conflict) if !conflict.acknowledged => Err(conflict.error()),
            _ => Ok(()),
        }
    }

    /// Remember that an upload collided.
    pub(super) async fn note_conflict(&self, key_id: Option<String>) -> Result<Conflict> {
        let now_ms = self.now_ms();
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    let mut conflict: Conflict = unit.get(&id()).await?.unwrap_or(Conflict {
                        since_ms: now_ms,
                        ..Conflict::default()
                    });
                    conflict.ids.extend(key_id);
                    conflict.tried_ms = now_ms;
                    unit.put(&id(), &conflict)?;
                    Ok(Ending::Commit(conflict))
                })
            })
            .await
    }

    /// Go on with this store after [`Error::OneTimeKeyConflict`], because the other one does not run any more: every
    /// room gets a new key before the next send, and one-time keys are numbered past those that collide.
    ///
    /// Peers who hold a one-time key of the other store cannot open a session with us by it; they are answered with a
    /// new session when they write. A new device is the cleaner way out.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, the_other_store_is_gone: bool) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::Error;
    ///
    /// match device.publish_keys().await {
    ///     Err(Error::OneTimeKeyConflict { .. }) if the_other_store_is_gone => device.acknowledge_key_conflict().await?,
    ///     published => published?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, of the store. Once the store holds the acknowledgement, uploads go on with the next sync.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn acknowledge_key_conflict(&self) -> Result<()> {
        let found = self
            .machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    let Some(mut conflict) = unit.get::<Conflict>(&id()).await? else {
                        return Ok(Ending::Undo(false));
                    };
                    conflict.acknowledged = true;
                    unit.put(&id(), &conflict)?;
                    next_epoch(unit).await?;
                    Ok(Ending::Commit(true))
                })
            })
            .await?;
        if found {
            self.upkeep(Upkeep::EverythingNow).await?;
        }
        Ok(())
    }

    /// The engine has nothing left to upload: an acknowledged conflict is over.
    pub(super) async fn uploads_are_settled(&self) -> Result<()> {
        if self.conflict().await?.is_none_or(|conflict| !conflict.acknowledged) {
            return Ok(());
        }
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.delete(&id())?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// Whether there is a conflict that is not acknowledged.
pub(crate) async fn is_noted(unit: &Unit) -> Result<bool> {
    let conflict = unit.get::<Conflict>(&id()).await?;
    Ok(conflict.is_some_and(|conflict| !conflict.acknowledged))
}

/// From now on every room key is outdated.
pub(crate) async fn next_epoch(unit: &Unit) -> Result<()> {
    let epoch: u64 = unit.get(&epoch_id()).await?.unwrap_or_default();
    Ok(unit.put(&epoch_id(), &(epoch + 1))?)
}

fn epoch_of(room: &RoomId) -> RecordId {
    RecordId::named(EPOCHS, &[], room.as_str())
}

/// Whether the room's key is from before an acknowledged conflict: it encrypts nothing any more.
pub(crate) async fn is_over(unit: &Unit, room: &RoomId) -> Result<bool> {
    let epoch = unit.get::<u64>(&epoch_id()).await?;
    Ok(epoch.is_some() && unit.get::<u64>(&epoch_of(room)).await? != epoch)
}

/// The same, before another key is made: it counts as renewed from then on.
pub(crate) async fn is_outdated(unit: &Unit, room: &RoomId) -> Result<bool> {
    let is_over = is_over(unit, room).await?;
    if is_over {
        let epoch: u64 = unit.get(&epoch_id()).await?.unwrap_or_default();
        unit.put(&epoch_of(room), &epoch)?;
    }
    Ok(is_over)
}

#[cfg(test)]
mod tests {
    use mx_transport::RequestError;
    use ruma::serde::Raw;
    use serde_json::json;

    use super::*;

    fn upload() -> upload_keys::v3::Request {
        let mut request = upload_keys::v3::Request::new();
        let key = json!({"key": "ours", "signatures": {}});
        request.one_time_keys.insert(
            "signed_curve25519:AAAAAQ".try_into().unwrap(),
            Raw::from_json(serde_json::value::to_raw_value(&key).unwrap()),
        );
        request
    }

    fn refusal(status: u16, errcode: &str, message: &str) -> RequestError {
        RequestError::Api {
            endpoint: "/keys/upload",
            status: status.try_into().unwrap(),
            errcode: Some(errcode.to_owned()),
            message: message.to_owned(),
            retry_after: None,
        }
    }

    #[test]
    fn synapses_words_are_read() {
        let text = |old: &str| {
            format!("One time key signed_curve25519:AAAAAQ already exists. Old key: {old}; new key: {{'key': 'ours'}}")
        };
        let read = |old: &str| collision(&refusal(400, "M_UNKNOWN", &text(old)), &upload());
        assert_eq!(read(r#"{"key":"ours","signatures":{"x":{}}}"#), Some(Collision::Same));
        let differs = Some(Collision::Differs("signed_curve25519:AAAAAQ".to_owned()));
        assert_eq!(read(r#"{"key":"theirs","signatures":{}}"#), differs);
        assert_eq!(read("ours"), differs, "what cannot be read is not the same");
        assert_eq!(read(""), differs);
    }

    #[test]
    fn other_words_are_a_suspicion_and_other_refusals_are_none() {
        let read = |status, errcode, message| collision(&refusal(status, errcode, message), &upload());
        assert_eq!(read(400, "M_UNKNOWN", "Clé déjà présente"), Some(Collision::Unreadable));
        let of_another = "One time key signed_curve25519:ZZZZZZ already exists.";
        assert_eq!(read(400, "M_UNKNOWN", of_another), Some(Collision::Unreadable));
        assert_eq!(read(400, "M_BAD_JSON", "no"), None);
        assert_eq!(read(403, "M_UNKNOWN", "One time key x already exists"), None);
        let nothing = upload_keys::v3::Request::new();
        assert_eq!(collision(&refusal(400, "M_UNKNOWN", "?"), &nothing), None);
    }
}
