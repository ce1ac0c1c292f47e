//! Which event used which index of a Megolm session: the specification's guard against replayed ciphertext.
//!
//! Section "Replay attacks" of Megolm. One row an index, found by its name, so that the cost does not grow with history.

use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{EventId, OwnedEventId, RoomId};
use serde::{Deserialize, Serialize};

use crate::Result;

const REPLAY: Family = Family::new("replay").passing();

#[derive(Serialize, Deserialize)]
struct Use {
    event: OwnedEventId,
    origin_server_ts: u64,
    /// What tells one ciphertext from another: the end of it, which is a signature over the rest.
    #[serde(default)]
    ending: String,
}

/// A message of a Megolm session: the event that brought it, and its place in the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) room: &'a RoomId,
    pub(crate) session: &'a str,
    pub(crate) index: u32,
    pub(crate) ciphertext: &'a str,
    pub(crate) event: &'a EventId,
    pub(crate) origin_server_ts: u64,
}

/// How much of a ciphertext's base64 is kept: 24 bytes of its Ed25519 signature.
const ENDING: usize = 32;

fn ending(ciphertext: &str) -> &str {
    ciphertext
        .len()
        .checked_sub(ENDING)
        .and_then(|start| ciphertext.get(start..))
        .unwrap_or(ciphertext)
}

/// What an index of a session was used for before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    New,
    /// This very event: it was handled before.
    Seen,
    /// Another event, with the same ciphertext.
    Replay { first: OwnedEventId },
    /// Another event, with another ciphertext.
    IndexReuse { first: OwnedEventId },
}

impl Place<'_> {
    fn id(&self) -> RecordId {
        RecordId::named(REPLAY, &[self.room.as_str(), self.session], &self.index.to_string())
    }
}

/// Record that an event used its place.
pub(crate) fn record(unit: &Unit, place: Place<'_>) -> Result<()> {
    let of = Use {
        event: place.event.to_owned(),
        origin_server_ts: place.origin_server_ts,
        ending: ending(place.ciphertext).to_owned(),
    };
    Ok(unit.put(&place.id(), &of)?)
}

/// Look at what the place of an event was used for. That does not use it: whoever is not the sender of a message may have a copy
/// of it, which must not be in the way of the original.
pub(crate) async fn look(unit: &Unit, place: Place<'_>) -> Result<Verdict> {
    let ending = ending(place.ciphertext);
    let Some(before) = unit.get::<Use>(&place.id()).await? else {
        return Ok(Verdict::New);
    };
    let same_text = before.ending.is_empty() || before.ending == ending;
    Ok(if !same_text {
        Verdict::IndexReuse { first: before.event }
    } else if before.event == place.event && before.origin_server_ts == place.origin_server_ts {
        Verdict::Seen
    } else {
        Verdict::Replay { first: before.event }
    })
}

/// Look at what the place of an event was used for, and record that this event used it, where none did.
pub(crate) async fn check(unit: &Unit, place: Place<'_>) -> Result<Verdict> {
    let verdict = look(unit, place).await?;
    if verdict == Verdict::New {
        record(unit, place)?;
    }
    Ok(verdict)
}
