//! One room key out of the backup, for events that wait for it.
//!
//! # Why
//! A backup proves nothing about who put a key into it: a homeserver that knows its public key can. A key that does not
//! open what waits for it is therefore not kept, so that it is not in the way of the real one.

use std::collections::BTreeSet;

use mx_crypto_store::{Cursor, Family, RecordId, Unit};
use mx_transport::RequestError;
use ruma::{OwnedRoomId, RoomId, api::client::backup::get_backup_keys_for_session};

use super::{is_active, restore::opened};
use crate::{Error, Orchestrator, Result, key_export::aside, machine::Ending, receive::waiting};

/// Sessions that one sync asks the backup for.
const ASKED_A_SYNC: usize = 10;

/// A key that is not there may be put there later, by a device of ours that has it: it is asked for again after this long.
const AGAIN_AFTER_MS: u64 = 60 * 60 * 1000;

/// Events that are looked at for that.
const LOOKED_AT: usize = 1_000;

const ASKED: Family = Family::new("backup-asked").passing();

type Session = (OwnedRoomId, String);

fn asked(room: &RoomId, session: &str) -> RecordId {
    RecordId::named(ASKED, &[room.as_str()], session)
}

impl Orchestrator {
    /// Look for the key of one session in the backup, and try again what waits for it. Returns whether it was there and
    /// opens what waits.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// // For an event that somebody wants to read now; a sync asks for the keys of what waits by itself, only later.
    /// for event in device.waiting(0, 20).await? {
    ///     if let Some(session) = &event.session_id
    ///         && device.fetch_room_key(&event.room_id, session).await?
    ///     {
    ///         println!("{} is in the inbox", event.event_id);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BackupError`](crate::BackupError); of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe: the key is taken with what it opens, or not at all.
    pub async fn fetch_room_key(&self, room: &RoomId, session: &str) -> Result<bool> {
        let (latest, key) = self.readable_backup().await?;
        let request =
            get_backup_keys_for_session::v3::Request::new(latest.version.clone(), room.to_owned(), session.to_owned());
        let found = match self.homeserver().send(request).await {
            Ok(answer) => answer.key_data,
            Err(RequestError::Api { status, .. }) if status.as_u16() == 404 => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let chunk = vec![(room.to_owned(), session.to_owned(), found)];
        let imported = aside(move || opened(&key, chunk)).await?;
        let (room, session, context) = (room.to_owned(), session.to_owned(), self.context().await?);
        let store = self.store().clone();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let taken = imported.take(machine, &store, Some(latest.version.as_str())).await?;
                    if taken == 0 || !waiting::opens(machine, unit, &room, &session).await? {
                        return Ok(Ending::Undo(false));
                    }
                    waiting::retry(machine, unit, &context, &room, &session).await?;
                    Ok(Ending::Commit(true))
                })
            })
            .await
    }

    /// What a sync asks the backup for: keys of events that wait, a few at a time, each once an hour.
    pub(crate) async fn fetch_waiting_keys(&self) -> Result<()> {
        let sessions = self.sessions_to_fetch().await?;
        for (room, session) in sessions {
            match self.fetch_room_key(&room, &session).await {
                Ok(_) => {}
                // It is another backup, or none: that is told by the upload.
                Err(Error::Backup(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
            let now_ms = self.now_ms();
            self.machine()
                .unit(move |_, unit| {
                    Box::pin(async move {
                        unit.put(&asked(&room, &session), &now_ms)?;
                        Ok(Ending::Commit(()))
                    })
                })
                .await?;
        }
        Ok(())
    }

    async fn sessions_to_fetch(&self) -> Result<Vec<Session>> {
        if waiting::none(self.store()).await? {
            return Ok(Vec::new());
        }
        let now_ms = self.now_ms();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    if !is_active(machine, unit).await? {
                        return Ok(Ending::Commit(Vec::new()));
                    }
                    Ok(Ending::Commit(due(unit, now_ms).await?))
                })
            })
            .await
    }
}

/// Sessions that events wait for and that were not asked for lately.
async fn due(unit: &Unit, now_ms: u64) -> Result<Vec<Session>> {
    let mut found: BTreeSet<Session> = BTreeSet::new();
    let (mut after, mut looked_at): (Option<Cursor>, usize) = (None, 0);
    while looked_at < LOOKED_AT {
        let (page, last) = waiting::sessions(unit, after.as_ref()).await?;
        for (room, session) in page {
            looked_at += 1;
            let before: Option<u64> = unit.get(&asked(&room, &session)).await?;
            if before.is_none_or(|before| now_ms.abs_diff(before) >= AGAIN_AFTER_MS) {
                found.insert((room, session));
                if found.len() == ASKED_A_SYNC {
                    return Ok(found.into_iter().collect());
                }
            }
        }
        let Some(last) = last else { break };
        after = Some(last);
    }
    Ok(found.into_iter().collect())
}
