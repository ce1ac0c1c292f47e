//! Room keys out of the backup: all of them, or those of a room.

use std::collections::BTreeMap;

use matrix_sdk_crypto::{olm::ExportedRoomKey, store::types::BackupDecryptionKey};
use ruma::{
    OwnedRoomId, RoomId,
    api::client::backup::{KeyBackupData, RoomKeyBackup, get_backup_keys, get_backup_keys_for_room},
    serde::Raw,
};

use super::{BackupError, version::Latest};
use crate::{
    Orchestrator, ProgressStep, Result, RoomKeyImport, imported::Imported, key_export::aside, machine::Ending,
};

/// Room keys that are decrypted and taken at once.
const CHUNK: usize = 1_000;

type Encrypted = (OwnedRoomId, String, Raw<KeyBackupData>);

impl Orchestrator {
    /// Take the room keys of the backup, or of one room in it. What waited for them is in the inbox afterwards, marked as
    /// [`Trust::Imported`](crate::Trust::Imported).
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
    /// let taken = device.restore_backup(Some(room)).await?;
    /// println!("{} keys are new, and {} events could be told something about with them", taken.imported, taken.retried);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BackupError`]; of the request; of the store. What was taken before it stays.
    ///
    /// # Cancel safety
    /// Safe: keys are taken a thousand at a time, and the same again does the rest.
    pub async fn restore_backup(&self, room: Option<&RoomId>) -> Result<RoomKeyImport> {
        let (latest, key) = self.readable_backup().await?;
        let version = latest.version;
        let rooms: BTreeMap<OwnedRoomId, RoomKeyBackup> = match room {
            None => {
                let request = get_backup_keys::v3::Request::new(version.clone());
                self.homeserver().send(request).await?.rooms
            }
            Some(room) => {
                let request = get_backup_keys_for_room::v3::Request::new(version.clone(), room.to_owned());
                let sessions = self.homeserver().send(request).await?.sessions;
                BTreeMap::from([(room.to_owned(), RoomKeyBackup::new(sessions))])
            }
        };
        let mut all: Vec<Encrypted> = rooms
            .into_iter()
            .flat_map(|(room, keys)| {
                let named = move |(id, key)| (room.clone(), id, key);
                keys.sessions.into_iter().map(named)
            })
            .collect();
        let total = all.len();
        let mut taken = RoomKeyImport::default();
        while !all.is_empty() {
            let chunk = all.split_off(all.len().saturating_sub(CHUNK));
            let key = key.clone();
            let opened = aside(move || opened(&key, chunk)).await?;
            taken.add(self.import(opened, Some(version.clone())).await?);
            self.tell_progress(room, ProgressStep::Restore, taken.total, total);
        }
        taken.retried = self.retry_waiting().await?;
        Ok(taken)
    }

    /// The backup, if it is ours, with the private key that reads it.
    pub(super) async fn readable_backup(&self) -> Result<(Latest, BackupDecryptionKey)> {
        let latest = self.latest_backup().await?.ok_or(BackupError::Absent)?;
        let standing = self.standing_of(&latest).await?;
        let key = self
            .backup_key()
            .await?
            .filter(|key| key.backup_key_matches(&latest.info));
        match key {
            Some(key) => Ok((latest, key)),
            None => Err(self.refusal(&latest, standing).into()),
        }
    }

    async fn backup_key(&self) -> Result<Option<BackupDecryptionKey>> {
        self.machine()
            .unit(|machine, _| {
                Box::pin(async {
                    let keys = machine.backup_machine().get_backup_keys().await?;
                    Ok(Ending::Commit(keys.decryption_key))
                })
            })
            .await
    }
}

/// Decrypt keys; those that cannot be read are counted.
pub(super) fn opened(key: &BackupDecryptionKey, chunk: Vec<Encrypted>) -> Imported {
    let mut unreadable = 0;
    let mut keys = Vec::with_capacity(chunk.len());
    for (room, id, data) in chunk {
        let data = data.deserialize().ok();
        match data.and_then(|data| key.decrypt_session_data(data.session_data).ok()) {
            Some(opened) => keys.push(ExportedRoomKey::from_backed_up_room_key(room, id, opened)),
            None => unreadable += 1,
        }
    }
    Imported::looked_at(keys).and_unreadable(unreadable)
}
