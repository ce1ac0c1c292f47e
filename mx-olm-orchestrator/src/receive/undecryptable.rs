//! Events that wait for their key: kept until it comes, reported once when it takes too long, never dropped in silence.
//!
//! Three record families: the events by Megolm session, so that a key finds what it opens in one scan; the reports in
//! the order in which they fall due, so that a sync looks at those only that are due; and the order in which events
//! came, so that the oldest goes when there are too many.

use mx_crypto_store::{Cursor, Family, PickleStore, RecordId, Unit};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Event, Lost, LostBecause, Message, Result, Trust, Undecryptable, UndecryptableReason, clock::is_due};

const WAITING: Family = Family::new("undecryptable").passing();
const DUE: Family = Family::new("undecryptable-due").passing();
const ORDER: Family = Family::new("undecryptable-order").passing();
const COUNT: Family = Family::new("undecryptable-count").passing();

/// How many records are looked at together.
const PAGE: usize = 256;

/// An event that waits.
#[derive(Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// The event as the homeserver gave it.
    pub(crate) raw: Box<RawValue>,
    /// What to report when the time has come, or was reported.
    pub(crate) report: Undecryptable,
    /// The report was delivered.
    #[serde(default)]
    pub(crate) reported: bool,
    /// Its place in the order in which events came.
    #[serde(default)]
    place: Option<u64>,
    /// What was inside, where it was taken before: it waits for its sender to be accepted, and is not decrypted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Box<Message>>,
}

impl Waiting {
    pub(crate) const fn new(raw: Box<RawValue>, report: Undecryptable) -> Self {
        Self {
            raw,
            report,
            reported: false,
            place: None,
            message: None,
        }
    }

    /// A message that was taken, and whose sender is not accepted.
    pub(crate) fn opened(message: Message, trust: Trust, now_ms: u64) -> Self {
        let reason = UndecryptableReason::NotAccepted { trust };
        let encryption = message.encryption.as_ref();
        let report = Undecryptable {
            room_id: message.room_id.clone(),
            event_id: message.event_id.clone(),
            sender: message.sender.clone(),
            origin_server_ts: message.origin_server_ts,
            session_id: encryption.map(|encryption| encryption.session_id.clone()),
            claimed_device: encryption.and_then(|encryption| encryption.sender_device.clone()),
            received_ms: now_ms,
            advice: reason.advice().to_owned(),
            reason,
        };
        Self {
            message: Some(Box::new(message)),
            ..Self::new(RawValue::NULL.to_owned(), report)
        }
    }

    /// What is told of it when it is given up.
    pub(crate) fn lost(self, because: LostBecause) -> Event {
        Event::Lost(Lost {
            room_id: self.report.room_id,
            event_id: self.report.event_id,
            sender: self.report.sender,
            reason: self.report.reason,
            because,
        })
    }

    fn session(&self) -> &str {
        self.report.session_id.as_deref().unwrap_or_default()
    }

    fn id(&self) -> RecordId {
        id(&self.report.room_id, self.session(), self.report.event_id.as_str())
    }
}

/// Which event, by what finds it.
#[derive(Serialize, Deserialize)]
struct Name {
    room: OwnedRoomId,
    session: String,
    event: OwnedEventId,
}

impl Name {
    fn of(waiting: &Waiting) -> Self {
        Self {
            room: waiting.report.room_id.clone(),
            session: waiting.session().to_owned(),
            event: waiting.report.event_id.clone(),
        }
    }

    fn id(&self) -> RecordId {
        id(&self.room, &self.session, self.event.as_str())
    }
}

#[derive(Serialize, Deserialize)]
struct Due {
    at_ms: u64,
    #[serde(flatten)]
    name: Name,
}

fn id(room: &RoomId, session: &str, event: &str) -> RecordId {
    RecordId::named(WAITING, &[room.as_str(), session], event)
}

fn count_id() -> RecordId {
    RecordId::named(COUNT, &[], "")
}

/// How many events wait.
pub(crate) async fn count(store: &PickleStore) -> Result<u64> {
    Ok(store.record(&count_id()).await?.unwrap_or(0))
}

/// How many of the events that wait were reported. Looks at each.
pub(crate) async fn reported(store: &PickleStore) -> Result<u64> {
    let mut reported = 0;
    let mut after = None;
    loop {
        let page = store.scan(ORDER, &[], after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(reported) };
        after = Some(last.cursor.clone());
        for record in page {
            let waiting: Option<Waiting> = store.record(&record.decode::<Name>()?.id()).await?;
            reported += u64::from(waiting.is_some_and(|waiting| waiting.reported));
        }
    }
}

/// Keep an event until its key comes; at most `most` are kept. `None`: it is kept already. Else those that had to go.
pub(crate) async fn keep(
    unit: &Unit,
    mut waiting: Waiting,
    report_at_ms: u64,
    most: usize,
) -> Result<Option<Vec<Waiting>>> {
    if unit.get::<Waiting>(&waiting.id()).await?.is_some() {
        return Ok(None);
    }
    let place = unit.next_sequence(ORDER, &[]).await?;
    waiting.place = Some(place);
    unit.put(&RecordId::sequence(ORDER, &[], place), &Name::of(&waiting))?;
    unit.put(&waiting.id(), &waiting)?;
    let due = Due {
        at_ms: report_at_ms,
        name: Name::of(&waiting),
    };
    let position = unit.next_sequence(DUE, &[]).await?;
    unit.put(&RecordId::sequence(DUE, &[], position), &due)?;
    let mut count = unit.get::<u64>(&count_id()).await?.unwrap_or(0).saturating_add(1);
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let mut gone = Vec::new();
    while count > most {
        let Some(oldest) = unit.scan(ORDER, &[], None, 1).await?.into_iter().next() else {
            break;
        };
        let id = oldest.decode::<Name>()?.id();
        if let Some(waiting) = unit.get::<Waiting>(&id).await? {
            gone.push(waiting);
            unit.delete(&id)?;
        }
        unit.delete_at(&oldest.cursor)?;
        count -= 1;
    }
    unit.put(&count_id(), &count)?;
    Ok(Some(gone))
}

/// Keep a message whose sender is not accepted, as [`keep`]. One that came again, and waits as it came, is it from here on:
/// opened once more it would be taken for handled.
pub(crate) async fn keep_opened(unit: &Unit, waiting: Waiting, report_at_ms: u64, most: usize) -> Result<Vec<Waiting>> {
    if let Some(mut before) = unit.get::<Waiting>(&waiting.id()).await? {
        before.message = waiting.message;
        update(unit, &before)?;
        return Ok(Vec::new());
    }
    Ok(keep(unit, waiting, report_at_ms, most).await?.unwrap_or_default())
}

/// The events that wait for a key of `session`, in the order in which they came.
pub(crate) async fn waiting_for(unit: &Unit, room: &RoomId, session: &str) -> Result<Vec<Waiting>> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = unit
            .scan(WAITING, &[room.as_str(), session], after.as_ref(), PAGE)
            .await?;
        let Some(last) = page.last() else {
            found.sort_by_key(|waiting: &Waiting| waiting.place);
            return Ok(found);
        };
        after = Some(last.cursor.clone());
        for record in page {
            found.push(record.decode::<Waiting>()?);
        }
    }
}

/// At most `limit` events that wait, in the order in which they came, after `after`; and where to go on.
pub(crate) async fn page(unit: &Unit, after: Option<&Cursor>, limit: usize) -> Result<(Vec<Waiting>, Option<Cursor>)> {
    let page = unit.scan(ORDER, &[], after, limit).await?;
    let last = page.last().map(|record| record.cursor.clone());
    let mut found = Vec::new();
    for record in page {
        found.extend(unit.get::<Waiting>(&record.decode::<Name>()?.id()).await?);
    }
    Ok((found, last))
}

/// Take everything that waits in a room out of the queue.
pub(crate) async fn leave(unit: &Unit, room: &RoomId) -> Result<Vec<Waiting>> {
    let mut gone = Vec::new();
    if unit.get::<u64>(&count_id()).await?.unwrap_or(0) == 0 {
        return Ok(gone);
    }
    let mut after = None;
    loop {
        let (waiting, last) = page(unit, after.as_ref(), PAGE).await?;
        if last.is_none() {
            break;
        }
        after = last;
        gone.extend(waiting.into_iter().filter(|waiting| waiting.report.room_id == room));
    }
    for waiting in &gone {
        forget(unit, waiting).await?;
    }
    Ok(gone)
}

/// What is known of an event that waits has changed.
pub(crate) fn update(unit: &Unit, waiting: &Waiting) -> Result<()> {
    Ok(unit.put(&waiting.id(), waiting)?)
}

/// An event was decrypted, or never will be.
pub(crate) async fn forget(unit: &Unit, waiting: &Waiting) -> Result<()> {
    unit.delete(&waiting.id())?;
    if let Some(place) = waiting.place {
        unit.delete(&RecordId::sequence(ORDER, &[], place))?;
    }
    let count = unit.get::<u64>(&count_id()).await?.unwrap_or(0);
    Ok(unit.put(&count_id(), &count.saturating_sub(1))?)
}

/// The reports that are due at `now_ms` of events that still wait, at most one page of them. `after_ms`: how long they wait.
pub(crate) async fn due(unit: &Unit, after_ms: u64, now_ms: u64) -> Result<Vec<Undecryptable>> {
    let mut reports = Vec::new();
    for record in unit.scan(DUE, &[], None, PAGE).await? {
        let due: Due = record.decode()?;
        // Behind one that is not, others may be: clocks are set.
        if !is_due(due.at_ms, after_ms, now_ms) {
            continue;
        }
        if let Some(mut waiting) = unit.get::<Waiting>(&due.name.id()).await? {
            reports.push(waiting.report.clone());
            waiting.reported = true;
            update(unit, &waiting)?;
        }
        unit.delete_at(&record.cursor)?;
    }
    Ok(reports)
}
