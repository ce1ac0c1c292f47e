//! Room keys that did not come from their senders: looked at one by one, taken together, and what waited for them tried.
//!
//! # Why
//! The engine keeps a key under the session that whoever gave it names, whatever the key itself says, and of two keys of
//! one session in one import the later one, whether it reaches further back or not. A key under another session's name would
//! keep the real one away for ever.

use std::collections::BTreeMap;

use matrix_sdk_crypto::{
    OlmMachine,
    olm::ExportedRoomKey,
    types::EventEncryptionAlgorithm,
    vodozemac::megolm::{InboundGroupSession, SessionConfig},
};
use mx_crypto_store::PickleStore;
use ruma::OwnedRoomId;

use crate::{Orchestrator, Result, RoomKeyImport, machine::Ending};

/// Room keys that may be imported.
#[derive(Default)]
pub(crate) struct Imported {
    keys: Vec<ExportedRoomKey>,
    /// How many there were.
    total: usize,
    /// How many of them were left out.
    unusable: usize,
}

impl Imported {
    /// Leave out what cannot be a room key, and of each session all but the key that reaches furthest back.
    pub(crate) fn looked_at(keys: Vec<ExportedRoomKey>) -> Self {
        let total = keys.len();
        let mut best: BTreeMap<(OwnedRoomId, String), (u32, ExportedRoomKey)> = BTreeMap::new();
        let mut unusable = 0;
        for key in keys {
            let Some(first_index) = first_index(&key) else {
                unusable += 1;
                continue;
            };
            let place = (key.room_id.clone(), key.session_id.clone());
            if best.get(&place).is_none_or(|(known, _)| first_index < *known) {
                best.insert(place, (first_index, key));
            }
        }
        if unusable > 0 {
            tracing::warn!(unusable, "room keys that were imported cannot be used");
        }
        Self {
            keys: best.into_values().map(|(_, key)| key).collect(),
            total,
            unusable,
        }
    }

    /// As many more could not even be read.
    pub(crate) const fn and_unreadable(mut self, unreadable: usize) -> Self {
        self.total += unreadable;
        self.unusable += unreadable;
        self
    }

    /// Give them to the engine. `backup`: the version of the backup that they are from, which need not be given them.
    pub(crate) async fn take(self, machine: &OlmMachine, store: &PickleStore, backup: Option<&str>) -> Result<usize> {
        let taken = Box::pin(machine.store().import_room_keys(self.keys, backup, |_, _| {})).await?;
        if backup.is_none() {
            let rooms = taken.keys.into_iter();
            let sessions = rooms.flat_map(|(room, senders)| {
                let sessions = senders.into_values().flatten();
                sessions.map(move |session| (room.clone(), session)).collect::<Vec<_>>()
            });
            store.needs_backup(&sessions.collect::<Vec<_>>()).await?;
        }
        Ok(taken.imported_count)
    }
}

impl Orchestrator {
    /// Take room keys in one unit of work, and try again what waited for them.
    pub(crate) async fn take_imported(&self, imported: Imported) -> Result<RoomKeyImport> {
        let mut taken = self.import(imported, None).await?;
        taken.retried = self.retry_waiting().await?;
        Ok(taken)
    }

    /// Take room keys in one unit of work.
    pub(crate) async fn import(&self, imported: Imported, backup: Option<String>) -> Result<RoomKeyImport> {
        let (total, unusable) = (imported.total, imported.unusable);
        let store = self.store().clone();
        let taken = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let taken = imported.take(machine, &store, backup.as_deref()).await?;
                    Ok(Ending::Commit(taken))
                })
            })
            .await?;
        self.backup_pace().is_due();
        Ok(RoomKeyImport {
            total,
            imported: taken,
            unusable,
            retried: 0,
        })
    }
}

/// The first message that a key opens. `None`: it is no key of the session that it is said to be of.
fn first_index(key: &ExportedRoomKey) -> Option<u32> {
    // The other algorithm of the engine is an experiment that no room here uses.
    if key.algorithm != EventEncryptionAlgorithm::MegolmV1AesSha2 {
        return None;
    }
    let session = InboundGroupSession::import(&key.session_key, SessionConfig::version_1());
    (session.session_id() == key.session_id).then(|| session.first_known_index())
}
