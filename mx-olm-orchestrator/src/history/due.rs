//! Histories that are to be given: noted before the invitation, so that a kill in between loses none.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use matrix_sdk_crypto::types::requests::ToDeviceRequest;
use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::HistoryShared;
use crate::{Orchestrator, Result, clock::is_due, machine::Ending};

const DUE: Family = Family::new("history-due");

/// More often it is not tried.
const MOST_ATTEMPTS: u32 = 8;
const FIRST_PAUSE_MS: u64 = 60 * 1000;
/// Histories that one sync gives.
const AT_ONCE: usize = 10;

/// Invitations that are under way: a sync that runs beside one must not find nobody invited.
#[derive(Debug, Default)]
pub(crate) struct Inviting(Mutex<BTreeMap<(OwnedRoomId, OwnedUserId), Instant>>);

impl Inviting {
    fn of(&self) -> MutexGuard<'_, BTreeMap<(OwnedRoomId, OwnedUserId), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, room: &RoomId, user: &UserId) {
        self.of().insert((room.to_owned(), user.to_owned()), Instant::now());
    }

    pub(super) fn end(&self, room: &RoomId, user: &UserId) {
        self.of().remove(&(room.to_owned(), user.to_owned()));
    }

    /// One of which nothing was heard for a minute is not.
    pub(super) fn is_under_way(&self, room: &RoomId, user: &UserId) -> bool {
        let mut all = self.of();
        all.retain(|_, since| since.elapsed() < Duration::from_millis(FIRST_PAUSE_MS));
        all.contains_key(&(room.to_owned(), user.to_owned()))
    }
}

/// A history that is to be given.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Due {
    pub(super) room: OwnedRoomId,
    pub(super) user: OwnedUserId,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    next_ms: u64,
    /// What is only to be delivered any more.
    #[serde(default)]
    pub(super) parcel: Option<Parcel>,
}

/// Encrypted word of an uploaded bundle, under transaction ids that stay the same.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Parcel {
    pub(super) requests: Vec<ToDeviceRequest>,
    pub(super) shared: HistoryShared,
}

impl Due {
    fn id(room: &RoomId, user: &UserId) -> RecordId {
        RecordId::named(DUE, &[], &format!("{room} {user}"))
    }

    pub(super) fn save(&self, unit: &Unit) -> Result<()> {
        Ok(unit.put(&Self::id(&self.room, &self.user), self)?)
    }

    pub(super) async fn load(unit: &Unit, room: &RoomId, user: &UserId) -> Result<Option<Self>> {
        Ok(unit.get(&Self::id(room, user)).await?)
    }

    pub(super) fn forget(unit: &Unit, room: &RoomId, user: &UserId) -> Result<()> {
        Ok(unit.delete(&Self::id(room, user))?)
    }

    /// An attempt failed. Returns whether it was the last.
    pub(super) fn failed(&mut self, now_ms: u64) -> bool {
        self.next_ms = now_ms.saturating_add(FIRST_PAUSE_MS << self.attempts.min(MOST_ATTEMPTS));
        self.attempts += 1;
        self.attempts >= MOST_ATTEMPTS
    }

    const fn is_due(&self, now_ms: u64) -> bool {
        is_due(self.next_ms, FIRST_PAUSE_MS << MOST_ATTEMPTS, now_ms)
    }

    /// Those that may be tried now.
    pub(super) async fn all(store: &PickleStore, now_ms: u64) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for record in store.scan(DUE, &[], None, AT_ONCE).await? {
            let due: Self = record.decode()?;
            if due.is_due(now_ms) {
                found.push(due);
            }
        }
        Ok(found)
    }
}

impl Orchestrator {
    /// Note that this user is to be given the history of the room, and say so before the user is invited: the next syncs do
    /// it, even where the process ends in between. What was noted before stays.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), Box<dyn std::error::Error>> {
    /// # async fn invite(room: &ruma::RoomId, user: &ruma::UserId) -> Result<(), std::io::Error> { Ok(()) }
    /// let user = ruma::user_id!("@new:example.org");
    /// device.may_share_history(room, user).await?;
    /// device.intend_history(room, user).await?;
    /// // A process that dies in between invites somebody who is given the history by the next syncs.
    /// if let Err(error) = invite(room, user).await {
    ///     device.forget_history(room, user).await?;
    ///     return Err(error.into());
    /// }
    /// device.share_history(room, user).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    ///
    /// # Cancel safety
    /// Safe: it is noted or not.
    pub async fn intend_history(&self, room: &RoomId, user: &UserId) -> Result<()> {
        self.keeping().inviting.begin(room, user);
        self.note_history(room, user).await
    }

    pub(super) async fn note_history(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let (room, user) = (room.to_owned(), user.to_owned());
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    if Due::load(unit, &room, &user).await?.is_none() {
                        let due = Due {
                            room,
                            user,
                            attempts: 0,
                            next_ms: 0,
                            parcel: None,
                        };
                        due.save(unit)?;
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// The user is not to be given the history of the room after all.
    ///
    /// # Errors
    /// Of the store.
    pub async fn forget_history(&self, room: &RoomId, user: &UserId) -> Result<()> {
        self.keeping().inviting.end(room, user);
        let (room, user) = (room.to_owned(), user.to_owned());
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    Due::forget(unit, &room, &user)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_ahead_keeps_nothing_from_being_tried() {
        let day_ms = 24 * 60 * 60 * 1000;
        let mut due = Due {
            room: ruma::owned_room_id!("!room:localhost"),
            user: ruma::owned_user_id!("@bob:localhost"),
            attempts: 0,
            next_ms: 0,
            parcel: None,
        };
        while !due.failed(100 * day_ms) {
            assert!(due.is_due(day_ms), "attempt {}", due.attempts);
            assert!(!due.is_due(100 * day_ms));
        }
    }
}
