//! What waits for keys, for those who bring keys one by one.

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{Cursor, PickleStore, Unit};
use ruma::{OwnedRoomId, RoomId};

use super::{
    Context, SyncSummary,
    decrypt::{self, Outcome},
    inbox,
    timeline::Timelines,
    undecryptable,
};
use crate::{Result, UndecryptableReason};

/// Events that are looked at at once.
const PAGE: usize = 100;

/// Whether nothing waits.
pub(crate) async fn none(store: &PickleStore) -> Result<bool> {
    Ok(undecryptable::count(store).await? == 0)
}

/// The sessions of some events that wait for keys that may come, after `after`; and where to go on.
pub(crate) async fn sessions(
    unit: &Unit,
    after: Option<&Cursor>,
) -> Result<(Vec<(OwnedRoomId, String)>, Option<Cursor>)> {
    let (page, last) = undecryptable::page(unit, after, PAGE).await?;
    let sessions = page.into_iter().filter_map(|waiting| {
        let report = waiting.report;
        Some((report.room_id, report.session_id?))
    });
    Ok((sessions.collect(), last))
}

/// Whether the key that is here now can be the one that is waited for: an event is opened, or none says otherwise. One that is
/// not opened beside one that is says nothing of the key: anybody in the room can send what no key opens.
pub(crate) async fn opens(machine: &OlmMachine, unit: &Unit, room: &RoomId, session: &str) -> Result<bool> {
    let mut failed = false;
    let waiting = undecryptable::waiting_for(unit, room, session).await?;
    for waiting in waiting.into_iter().filter(|waiting| waiting.message.is_none()) {
        match decrypt::decrypt(machine, room, &waiting.raw).await? {
            Outcome::Open(_) => return Ok(true),
            Outcome::Closed(closed) => failed |= closed.reason != UndecryptableReason::KeyStartsLater,
        }
    }
    Ok(!failed)
}

/// Try again what waits for the key of a session. What it opens is in the inbox.
pub(crate) async fn retry(
    machine: &OlmMachine,
    unit: &Unit,
    context: &Context,
    room: &RoomId,
    session: &str,
) -> Result<()> {
    let (mut summary, mut events) = (SyncSummary::default(), Vec::new());
    let mut timelines = Timelines::new(machine, unit, context, &mut summary, &mut events);
    timelines.retry(room, session).await?;
    context.verifications.overhear(timelines.into_heard().1);
    inbox::append(unit, &events).await
}
