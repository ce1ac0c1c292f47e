//! How much one user may give us in a day: without a limit, anybody could fill the disk.

use std::collections::BTreeMap;

use matrix_sdk_common::deserialized_responses::ProcessedToDeviceEvent;
use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use super::to_device::opened_with;
use crate::Result;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Room keys, of which a user gives one for each room and week, or hundred messages.
pub(super) const ROOM_KEYS: Quota = Quota {
    family: Family::new("room-keys-of-the-day").passing(),
    most: 1_000,
};

/// Word of room keys that we are not given, of which a user says one for each.
pub(super) const WITHHELD: Quota = Quota {
    family: Family::new("withheld-of-the-day").passing(),
    most: 100,
};

/// What one user may give us in a day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    family: Family,
    most: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct OfTheDay {
    since_ms: u64,
    count: u64,
}

impl Quota {
    /// Count one more. Returns whether it is one too many.
    pub(super) async fn is_over(&self, unit: &Unit, user: &UserId, now_ms: u64) -> Result<bool> {
        let id = RecordId::named(self.family, &[], user.as_str());
        let mut day: OfTheDay = unit.get(&id).await?.unwrap_or_default();
        // A clock that was set back begins a new day, too.
        if now_ms < day.since_ms || now_ms - day.since_ms > DAY_MS {
            day = OfTheDay {
                since_ms: now_ms,
                count: 0,
            };
        }
        day.count = day.count.saturating_add(1);
        unit.put(&id, &day)?;
        Ok(day.count > self.most)
    }
}

/// Who gave room keys, by the Curve25519 keys of their devices.
pub(super) type Givers = BTreeMap<String, OwnedUserId>;

/// Whose room keys are among what was decrypted.
pub(super) fn givers(processed: &[ProcessedToDeviceEvent]) -> Givers {
    let given = processed.iter().filter_map(|event| {
        let ProcessedToDeviceEvent::Decrypted { raw, encryption_info } = event else {
            return None;
        };
        let event_type: Option<String> = raw.get_field("type").ok()?;
        let key = opened_with(&encryption_info.algorithm_info)?;
        (event_type.as_deref() == Some("m.room_key")).then(|| (key, encryption_info.sender.clone()))
    });
    given.collect()
}
