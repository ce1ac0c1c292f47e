//! What is remembered of a dehydrated device: the one that we made, and the one that is being opened.

use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{OwnedDeviceId, api::client::dehydrated_device::DehydratedDeviceData, serde::Raw};
use serde::{Deserialize, Serialize};

use crate::{Result, clock::is_due, keys::SETTINGS};

const OPENING: Family = Family::new("rehydrating");

/// A device is replaced after this long: its one-time keys are used up by then, and what it was sent is here.
const REPLACED_AFTER_MS: u64 = 7 * 24 * 60 * 60 * 1000;
const AGAIN_AFTER_MS: u64 = 60 * 60 * 1000;

/// More often a device is not opened by syncs.
const MOST_ATTEMPTS: u32 = 8;
const FIRST_PAUSE_MS: u64 = 60 * 1000;

/// The device that is on the homeserver.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) device: OwnedDeviceId,
    pub(super) since_ms: u64,
    #[serde(default)]
    next_ms: u64,
    /// This device made it, or has opened it: what it was sent is here. Another one is opened before it is replaced.
    #[serde(default)]
    pub(super) taken: bool,
}

impl Made {
    pub(super) fn id() -> RecordId {
        RecordId::named(SETTINGS, &[], "dehydrated-device")
    }

    pub(super) const fn new(device: OwnedDeviceId, since_ms: u64) -> Self {
        Self {
            device,
            since_ms,
            next_ms: since_ms.saturating_add(REPLACED_AFTER_MS),
            taken: true,
        }
    }

    /// Another device of ours made it.
    pub(super) const fn elsewhere(device: OwnedDeviceId, since_ms: u64) -> Self {
        let mut made = Self::new(device, since_ms);
        made.taken = false;
        made
    }

    /// It was opened, and is to be replaced.
    pub(super) const fn used_up(device: OwnedDeviceId, since_ms: u64) -> Self {
        Self {
            device,
            since_ms,
            next_ms: 0,
            taken: true,
        }
    }

    /// Whether it is time for another one.
    pub(super) const fn is_due(&self, now_ms: u64) -> bool {
        is_due(self.next_ms, REPLACED_AFTER_MS, now_ms)
    }

    pub(super) fn save(&self, unit: &Unit) -> Result<()> {
        Ok(unit.put(&Self::id(), self)?)
    }

    /// It could not be replaced now.
    pub(super) const fn later(&mut self, now_ms: u64) {
        self.since_ms = if now_ms < self.since_ms { now_ms } else { self.since_ms };
        self.next_ms = now_ms.saturating_add(AGAIN_AFTER_MS);
    }
}

/// The identity is another one, and has not signed the device: the next sync makes another.
pub(crate) async fn replace_soon(unit: &Unit) -> Result<()> {
    if let Some(mut made) = unit.get::<Made>(&Made::id()).await? {
        made.next_ms = 0;
        made.save(unit)?;
    }
    Ok(())
}

/// A device, as the homeserver showed it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) device: OwnedDeviceId,
    pub(super) data: Raw<DehydratedDeviceData>,
}

/// That the device of the homeserver is to be opened, and how far that is.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Opening {
    /// `None`: it was not asked for yet.
    #[serde(default)]
    pub(super) found: Option<Found>,
    /// What was taken until here is on the disk.
    #[serde(default)]
    pub(super) next_batch: Option<String>,
    #[serde(default)]
    pub(super) room_keys: usize,
    #[serde(default)]
    pub(super) pages: usize,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    next_ms: u64,
}

impl Opening {
    pub(super) fn id() -> RecordId {
        RecordId::named(OPENING, &[], "")
    }

    /// This one, from its beginning. What was tried before counts, and what was asked for: a homeserver that shows another
    /// device each time is not asked without an end.
    pub(super) fn of(&self, found: Found) -> Self {
        Self {
            found: Some(found),
            pages: self.pages,
            attempts: self.attempts,
            next_ms: self.next_ms,
            ..Self::default()
        }
    }

    pub(super) const fn is_due(&self, now_ms: u64) -> bool {
        is_due(self.next_ms, FIRST_PAUSE_MS << MOST_ATTEMPTS, now_ms)
    }

    /// An attempt failed. Returns whether it was the last.
    pub(super) fn failed(&mut self, now_ms: u64) -> bool {
        self.next_ms = now_ms.saturating_add(FIRST_PAUSE_MS << self.attempts.min(MOST_ATTEMPTS));
        self.attempts += 1;
        self.attempts >= MOST_ATTEMPTS
    }

    pub(super) fn save(&self, unit: &Unit) -> Result<()> {
        Ok(unit.put(&Self::id(), self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_ahead_keeps_nothing_from_being_tried() {
        let week = REPLACED_AFTER_MS;
        let mut made = Made::new("D".into(), week);
        made.later(100 * week);
        assert!(made.is_due(2 * week));
        let mut opening = Opening::default();
        while !opening.failed(100 * week) {
            assert!(opening.is_due(week), "attempt {}", opening.attempts);
            assert!(!opening.is_due(100 * week));
        }
    }

    #[test]
    fn it_is_replaced_after_a_week_and_not_tried_without_a_pause() {
        let week = REPLACED_AFTER_MS;
        let mut made = Made::new("D".into(), week);
        assert!(!made.is_due(week) && !made.is_due(2 * week - 1));
        assert!(made.is_due(2 * week));
        made.later(2 * week);
        assert!(!made.is_due(2 * week + AGAIN_AFTER_MS - 1));
        assert!(made.is_due(2 * week + AGAIN_AFTER_MS));
        let mut ahead = Made::new("D".into(), 10 * week);
        assert!(ahead.is_due(week), "the clock was set back");
        ahead.later(week);
        assert!(!ahead.is_due(week + 1));
    }
}
