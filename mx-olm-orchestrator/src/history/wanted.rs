//! Rooms that we came into by an invitation: for a day, who invited us may give us the keys of the time before.

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use crate::{Result, clock::is_due};

const WANTED: Family = Family::new("history-wanted").passing();

/// A bundle that comes later than this after we joined is not taken (as other clients have it).
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// More often the homeserver is not asked for a bundle.
const MOST_ATTEMPTS: u32 = 8;
const FIRST_PAUSE_MS: u64 = 60 * 1000;
/// Rooms that one sync looks at.
pub(super) const AT_ONCE: usize = 20;

/// What is wanted, and of whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) room: OwnedRoomId,
    pub(super) inviter: OwnedUserId,
    since_ms: u64,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    next_ms: u64,
}

impl Wanted {
    /// It is too late.
    pub(super) const fn is_over(&self, now_ms: u64) -> bool {
        now_ms.abs_diff(self.since_ms) > DAY_MS
    }

    pub(super) const fn is_due(&self, now_ms: u64) -> bool {
        is_due(self.next_ms, FIRST_PAUSE_MS << MOST_ATTEMPTS, now_ms)
    }

    /// An offer was refused. Returns whether it was the last that is looked at.
    pub(super) const fn refused(&mut self) -> bool {
        self.attempts += 1;
        self.attempts >= MOST_ATTEMPTS
    }

    /// An attempt failed. Returns whether it was the last.
    pub(super) fn failed(&mut self, now_ms: u64) -> bool {
        self.next_ms = now_ms.saturating_add(FIRST_PAUSE_MS << self.attempts.min(MOST_ATTEMPTS));
        self.attempts += 1;
        self.attempts >= MOST_ATTEMPTS
    }

    pub(super) fn save(&self, unit: &Unit) -> Result<()> {
        Ok(unit.put(&id(&self.room), self)?)
    }
}

fn id(room: &RoomId) -> RecordId {
    RecordId::named(WANTED, &[], room.as_str())
}

/// We came into this room because this user invited us.
pub(crate) fn want(unit: &Unit, room: &RoomId, inviter: OwnedUserId, now_ms: u64) -> Result<()> {
    let wanted = Wanted {
        room: room.to_owned(),
        inviter,
        since_ms: now_ms,
        attempts: 0,
        next_ms: 0,
    };
    wanted.save(unit)
}

/// Nothing is wanted for this room any more.
pub(crate) async fn forget(unit: &Unit, room: &RoomId) -> Result<()> {
    if unit.get::<Wanted>(&id(room)).await?.is_some() {
        unit.delete(&id(room))?;
    }
    Ok(())
}

/// As a unit of work sees it.
pub(super) async fn load(unit: &Unit, room: &RoomId) -> Result<Option<Wanted>> {
    Ok(unit.get(&id(room)).await?)
}

/// All rooms for which something is wanted.
pub(super) async fn all(store: &PickleStore) -> Result<Vec<Wanted>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = store.scan(WANTED, &[], after.as_ref(), AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.cursor.clone());
        for record in page {
            found.push(record.decode()?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_ahead_keeps_nothing_from_being_tried_or_given_up() {
        let mut wanted = Wanted {
            room: ruma::owned_room_id!("!room:localhost"),
            inviter: ruma::owned_user_id!("@bob:localhost"),
            since_ms: 100 * DAY_MS,
            attempts: 0,
            next_ms: 0,
        };
        assert!(!wanted.is_over(101 * DAY_MS) && wanted.is_over(DAY_MS));
        while !wanted.failed(100 * DAY_MS) {
            assert!(wanted.is_due(DAY_MS), "attempt {}", wanted.attempts);
            assert!(!wanted.is_due(100 * DAY_MS));
        }
    }
}
