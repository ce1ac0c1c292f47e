//! Events that wait for their key: kept until it comes, reported once when it takes too long.
//!
//! Two record families: the events by Megolm session, so that a key finds what it opens in one scan; and the reports
//! in the order in which they fall due, so that a sync looks at those only that are due.

use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Result, Undecryptable};

const WAITING: Family = Family::new("undecryptable");
const DUE: Family = Family::new("undecryptable-due");

/// How many events of one session are looked at together.
const PAGE: usize = 256;

/// An event that waits.
#[derive(Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// The event as the homeserver gave it.
    pub(crate) raw: Box<RawValue>,
    /// What to report when the time has come, or was reported.
    pub(crate) report: Undecryptable,
}

#[derive(Serialize, Deserialize)]
struct Due {
    at_ms: u64,
    room: OwnedRoomId,
    session: String,
    event: OwnedEventId,
}

fn id(room: &RoomId, session: &str, event: &str) -> RecordId {
    RecordId::named(WAITING, &[room.as_str(), session], event)
}

/// Keep an event until its key comes. Keeping it again changes nothing.
pub(crate) async fn keep(unit: &Unit, session: &str, waiting: &Waiting, report_at_ms: u64) -> Result<bool> {
    let report = &waiting.report;
    let id = id(&report.room_id, session, report.event_id.as_str());
    if unit.get::<Waiting>(&id).await?.is_some() {
        return Ok(false);
    }
    unit.put(&id, waiting)?;
    let due = Due {
        at_ms: report_at_ms,
        room: report.room_id.clone(),
        session: session.to_owned(),
        event: report.event_id.clone(),
    };
    let position = unit.next_sequence(DUE, &[]).await?;
    unit.put(&RecordId::sequence(DUE, &[], position), &due)?;
    Ok(true)
}

/// Take the events that waited for a key of `session` out of the queue: the caller decrypts them, and keeps again
/// what still cannot be.
pub(crate) async fn waiting_for(unit: &Unit, room: &RoomId, session: &str) -> Result<Vec<Waiting>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = unit
            .scan(WAITING, &[room.as_str(), session], after.as_ref(), PAGE)
            .await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.cursor.clone());
        for record in page {
            found.push(record.decode::<Waiting>()?);
        }
    }
}

/// An event was decrypted, or never will be.
pub(crate) fn forget(unit: &Unit, waiting: &Waiting, session: &str) -> Result<()> {
    Ok(unit.delete(&id(&waiting.report.room_id, session, waiting.report.event_id.as_str()))?)
}

/// The reports that are due at `now_ms` of events that still wait, at most one page of them.
pub(crate) async fn due(unit: &Unit, now_ms: u64) -> Result<Vec<Undecryptable>> {
    let mut reports = Vec::new();
    for record in unit.scan(DUE, &[], None, PAGE).await? {
        let due: Due = record.decode()?;
        if due.at_ms > now_ms {
            break;
        }
        if let Some(waiting) = unit
            .get::<Waiting>(&id(&due.room, &due.session, due.event.as_str()))
            .await?
        {
            reports.push(waiting.report);
        }
        unit.delete_at(&record.cursor)?;
    }
    Ok(reports)
}
