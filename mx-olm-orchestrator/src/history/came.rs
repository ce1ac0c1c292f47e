//! Bundles that were offered: kept for a while, since they come before the invitation, and not without a limit.

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::Result;

const CAME: Family = Family::new("history-came").passing();

/// Offers of one user that are remembered: anybody can make them.
const MOST_OF_ONE: usize = 20;
/// Offers that are remembered.
const MOST: usize = 500;
/// Who has not come until then was not invited.
const KEPT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

#[derive(Serialize, Deserialize)]
struct Came {
    room: OwnedRoomId,
    sender: OwnedUserId,
    at_ms: u64,
}

/// A bundle was offered, of which the engine has taken note. The oldest offers go where there are too many.
pub(crate) async fn came(unit: &Unit, store: &PickleStore, room: &RoomId, sender: &UserId, now_ms: u64) -> Result<()> {
    let mut known = Vec::new();
    for record in unit.scan(CAME, &[], None, MOST + 1).await? {
        let came: Came = record.decode()?;
        if came.room == room && came.sender == sender {
            // The engine keeps the newest.
            unit.delete_at(&record.cursor)?;
        } else {
            known.push((record.cursor, came));
        }
    }
    let position = unit.next_sequence(CAME, &[]).await?;
    let newest = Came {
        room: room.to_owned(),
        sender: sender.to_owned(),
        at_ms: now_ms,
    };
    unit.put(&RecordId::sequence(CAME, &[], position), &newest)?;
    let mut of_sender = known.iter().filter(|(_, came)| came.sender == sender).count() + 1;
    let mut all = known.len() + 1;
    for (cursor, came) in known {
        let too_many_of_one = came.sender == sender && of_sender > MOST_OF_ONE;
        if all <= MOST && !too_many_of_one && now_ms.saturating_sub(came.at_ms) < KEPT_MS {
            continue;
        }
        of_sender -= usize::from(came.sender == sender);
        all -= 1;
        store.forget_key_bundle(&came.room, &came.sender).await?;
        unit.delete_at(&cursor)?;
    }
    Ok(())
}

/// It was taken, or never will be.
pub(super) async fn forget(unit: &Unit, store: &PickleStore, room: &RoomId, sender: &UserId) -> Result<()> {
    store.forget_key_bundle(room, sender).await?;
    for record in unit.scan(CAME, &[], None, MOST + 1).await? {
        let came: Came = record.decode()?;
        if came.room == room && came.sender == sender {
            unit.delete_at(&record.cursor)?;
        }
    }
    Ok(())
}
