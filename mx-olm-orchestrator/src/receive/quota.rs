//! How many room keys one user may give us in a day: without a limit, anybody could fill the disk.

use std::collections::BTreeSet;

use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{OwnedRoomId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::Result;

const ROOM_KEYS: Family = Family::new("room-keys-of-the-day").passing();

/// Room keys that one user may give us in a day.
const MAX_ROOM_KEYS: u64 = 1_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Default, Serialize, Deserialize)]
struct OfTheDay {
    since_ms: u64,
    count: u64,
}

/// Count the room keys that users gave us. Returns those that are too many: the caller lets them go.
pub(super) async fn over_quota(
    unit: &Unit,
    keys: &[(OwnedUserId, OwnedRoomId, String)],
    now_ms: u64,
) -> Result<Vec<(OwnedUserId, OwnedRoomId, String)>> {
    let mut over = Vec::new();
    let senders: BTreeSet<&OwnedUserId> = keys.iter().map(|(sender, ..)| sender).collect();
    for sender in senders {
        let id = RecordId::named(ROOM_KEYS, &[], sender.as_str());
        let mut day: OfTheDay = unit.get(&id).await?.unwrap_or_default();
        // A clock that was set back begins a new day, too.
        if now_ms < day.since_ms || now_ms - day.since_ms > DAY_MS {
            day = OfTheDay {
                since_ms: now_ms,
                count: 0,
            };
        }
        for key in keys.iter().filter(|(of, ..)| of == sender) {
            day.count = day.count.saturating_add(1);
            if day.count > MAX_ROOM_KEYS {
                over.push(key.clone());
            }
        }
        unit.put(&id, &day)?;
    }
    Ok(over)
}
