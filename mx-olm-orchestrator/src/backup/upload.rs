//! Room keys on their way into the backup: a batch at a time, marked when the homeserver has it.

use std::sync::atomic::{AtomicBool, Ordering};

use matrix_sdk_crypto::{
    store::CryptoStore,
    types::requests::{AnyIncomingResponse, KeysBackupRequest},
};
use mx_crypto_store::PickleStore;
use mx_transport::{Call, RequestError};
use ruma::{OwnedRoomId, OwnedTransactionId, api::client::backup::add_backup_keys};
use tokio::sync::Mutex;

use super::{BackupError, BackupHalt, is_active};
use crate::{Error, Orchestrator, ProgressStep, Result, machine::Ending};

/// A sync puts at most this many batches of a hundred keys into the backup; the rest goes with the next ones.
const BATCHES_A_SYNC: usize = 3;

/// Whether there may be something to upload.
#[derive(Debug)]
pub(crate) struct BackupPace {
    due: AtomicBool,
    /// Held by whoever uploads.
    alone: Mutex<Walk>,
}

/// From the first key that was not in the backup until there is none: more than one sync may be needed for that.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    done: usize,
    total: usize,
}

impl Walk {
    /// `waiting`: keys that are not in the backup, and wait for it.
    fn goes_on(&mut self, waiting: usize) {
        self.total = self.done + waiting;
    }
}

impl Default for BackupPace {
    fn default() -> Self {
        Self {
            // What an earlier process left.
            due: AtomicBool::new(true),
            alone: Mutex::default(),
        }
    }
}

impl BackupPace {
    /// Room keys came, or were made.
    pub(crate) fn is_due(&self) {
        self.due.store(true, Ordering::SeqCst);
    }
}

impl Orchestrator {
    pub(crate) fn backup_pace(&self) -> &BackupPace {
        &self.keeping().backup
    }

    /// Put room keys that are not in the backup into it, at most `batches` of a hundred. Returns how many went. A sync
    /// puts some by itself; [`progress`](Self::progress) shows how far it is.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// // A thousand at a time, so that others have their turn in between.
    /// while device.back_up(10).await? > 0 {}
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BackupError::Changed`] when the backup is not the one that was used: then no more is put into it, and the
    /// app is told; of the request, and the same keys go again next time; of the store.
    ///
    /// # Cancel safety
    /// Safe: a batch whose answer did not come goes again.
    pub async fn back_up(&self, batches: usize) -> Result<usize> {
        let mut walk = self.backup_pace().alone.lock().await;
        let mut done = 0;
        for number in 0..batches {
            self.backup_pace().due.store(false, Ordering::SeqCst);
            // Every key is looked at for that, so not for each batch.
            let counts = number == 0 && walk.total <= walk.done;
            let Some((id, batch, waiting)) = self.next_batch(counts).await? else {
                *walk = Walk::default();
                return Ok(done);
            };
            if let Some(waiting) = waiting {
                walk.goes_on(waiting);
                self.tell_progress(None, ProgressStep::Backup, walk.done, walk.total);
            }
            // Until it is marked, there is more.
            self.backup_pace().is_due();
            let request = add_backup_keys::v3::Request::new(batch.version.clone(), batch.rooms.clone());
            let answer = match self.homeserver().send_with(request, Call::repeatable()).await {
                Ok(answer) => answer,
                Err(error) => return Err(self.refused_batch(batch.version, error).await?),
            };
            let store = self.store().clone();
            let keys = self
                .machine()
                .unit(move |machine, _| {
                    Box::pin(async move {
                        let better = better_by_now(&store, &batch).await?;
                        let incoming = AnyIncomingResponse::KeysBackup(&answer);
                        Box::pin(machine.mark_request_as_sent(&id, incoming)).await?;
                        store.needs_backup(&better).await?;
                        let keys = batch.rooms.values().map(|room| room.sessions.len()).sum::<usize>();
                        Ok(Ending::Commit(keys))
                    })
                })
                .await?;
            done += keys;
            walk.done += keys;
            // Others came meanwhile.
            walk.total = walk.total.max(walk.done);
            self.tell_progress(None, ProgressStep::Backup, walk.done, walk.total);
        }
        Ok(done)
    }

    /// The next keys to put into the backup, and with `counts` how many there are with them.
    async fn next_batch(&self, counts: bool) -> Result<Option<(OwnedTransactionId, KeysBackupRequest, Option<usize>)>> {
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let backups = machine.backup_machine();
                    if !is_active(machine, unit).await? {
                        return Ok(Ending::Commit(None));
                    }
                    let Some((id, batch)) = backups.backup().await? else {
                        return Ok(Ending::Commit(None));
                    };
                    let waiting = if counts {
                        let counts = backups.room_key_counts().await?;
                        Some(counts.total.saturating_sub(counts.backed_up))
                    } else {
                        None
                    };
                    Ok(Ending::Commit(Some((id, batch, waiting))))
                })
            })
            .await
    }

    /// What a sync does for the backup.
    pub(crate) async fn back_up_some(&self) -> Result<()> {
        if !self.backup_pace().due.load(Ordering::SeqCst) {
            return Ok(());
        }
        match self.back_up(BATCHES_A_SYNC).await {
            Ok(_) => Ok(()),
            // It is told, and nothing else waits for it.
            Err(Error::Backup(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Why the homeserver did not take a batch.
    async fn refused_batch(&self, version: String, error: RequestError) -> Result<Error> {
        let because = match &error {
            RequestError::Api { errcode, .. } if errcode.as_deref() == Some("M_WRONG_ROOM_KEYS_VERSION") => {
                BackupHalt::Replaced
            }
            RequestError::Api { status, errcode, .. }
                if status.as_u16() == 404 && errcode.as_deref() == Some("M_NOT_FOUND") =>
            {
                BackupHalt::Deleted
            }
            _ => return Ok(error.into()),
        };
        self.halt_backup(because, Some(version.clone())).await?;
        Ok(BackupError::Changed { version }.into())
    }
}

/// Keys of a batch that reach further back by now than what was put into the backup: the engine would mark them all the
/// same.
async fn better_by_now(store: &PickleStore, batch: &KeysBackupRequest) -> Result<Vec<(OwnedRoomId, String)>> {
    #[derive(serde::Deserialize)]
    struct Put {
        first_message_index: u32,
    }
    let mut better = Vec::new();
    for (room, keys) in &batch.rooms {
        for (id, key) in &keys.sessions {
            let put: Option<Put> = serde_json::from_str(key.json().get()).ok();
            let held = store.get_inbound_group_session(room, id).await?;
            let reaches = held.map(|held| held.first_known_index());
            if put
                .zip(reaches)
                .is_some_and(|(put, reaches)| reaches < put.first_message_index)
            {
                better.push((room.clone(), id.clone()));
            }
        }
    }
    Ok(better)
}
