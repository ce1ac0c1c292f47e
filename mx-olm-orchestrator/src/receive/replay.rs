//! Which event used which index of a Megolm session: the specification's guard against replayed ciphertext.
//!
//! Section "Replay attacks" of Megolm. One row an index, found by its name, so that the cost does not grow with history.

use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{EventId, OwnedEventId, RoomId};
use serde::{Deserialize, Serialize};

use crate::Result;

const REPLAY: Family = Family::new("replay");

#[derive(Serialize, Deserialize)]
struct Use {
    event: OwnedEventId,
    origin_server_ts: u64,
}

/// What an index of a session was used for before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: it is recorded now.
    New,
    /// This very event: it was handled before.
    Seen,
    /// Another event.
    Replay { first: OwnedEventId },
}

/// Check, and record, that `event` used index `index` of `session`.
pub(crate) async fn check(
    unit: &Unit,
    room: &RoomId,
    session: &str,
    index: u32,
    event: &EventId,
    origin_server_ts: u64,
) -> Result<Verdict> {
    let id = RecordId::named(REPLAY, &[room.as_str(), session], &index.to_string());
    match unit.get::<Use>(&id).await? {
        None => {
            unit.put(
                &id,
                &Use {
                    event: event.to_owned(),
                    origin_server_ts,
                },
            )?;
            Ok(Verdict::New)
        }
        Some(before) if before.event == event && before.origin_server_ts == origin_server_ts => Ok(Verdict::Seen),
        Some(before) => Ok(Verdict::Replay { first: before.event }),
    }
}
