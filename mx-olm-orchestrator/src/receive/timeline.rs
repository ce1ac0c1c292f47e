//! Room timelines: from what the homeserver gave to what the app is told.

mod header;
mod readable;
mod state;

use std::collections::BTreeSet;

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::Unit;
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::value::RawValue;

use self::header::{Header, Named};
use super::{
    Context, SyncSummary, before,
    decrypt::{self, Closed, MessagePlace, Opened, Outcome},
    inside,
    replay::{self, Place, Verdict},
    seen::Seen,
    standing,
    undecryptable::{self, Waiting},
};
use crate::{
    Event, LostBecause, Malformed, Rejected, RejectedReason, Result, Undecryptable, UndecryptableReason,
    backup::is_active,
    rollback::{self, Unopened},
    rooms::RoomRecord,
    verification::{Attention, Heard, Hearing, RoomEvent, Scene},
};

/// The timelines of one sync.
pub(super) struct Timelines<'a> {
    machine: &'a OlmMachine,
    unit: &'a Unit,
    context: &'a Context,
    summary: &'a mut SyncSummary,
    events: &'a mut Vec<Event>,
    senders: BTreeSet<OwnedUserId>,
    hearing: Hearing,
    device_since_ms: u64,
}

impl<'a> Timelines<'a> {
    pub(super) fn new(
        machine: &'a OlmMachine,
        unit: &'a Unit,
        context: &'a Context,
        summary: &'a mut SyncSummary,
        events: &'a mut Vec<Event>,
    ) -> Self {
        let device_since_ms = machine.device_creation_time().0.into();
        Self {
            machine,
            unit,
            context,
            summary,
            events,
            senders: BTreeSet::new(),
            hearing: Hearing::default(),
            device_since_ms,
        }
    }

    /// Who sent encrypted events: their devices are worth knowing. And of whose verifications there is news.
    pub(super) fn into_heard(self) -> (BTreeSet<OwnedUserId>, Heard) {
        (self.senders, self.hearing.heard)
    }

    /// Take an event of a verification with us: it is nothing to the app.
    async fn heard(&mut self, event: RoomEvent<'_>) -> Result<Attention> {
        self.hearing
            .hear(Scene::of(self.machine, self.unit, self.context), event)
            .await
    }

    /// A key came, or word of one: what waited for it is tried again.
    pub(super) async fn retry(&mut self, room: &RoomId, session: &str) -> Result<()> {
        for waiting in undecryptable::waiting_for(self.unit, room, session).await? {
            self.retry_one(waiting).await?;
        }
        Ok(())
    }

    /// Try an event again that waits.
    pub(super) async fn retry_one(&mut self, mut waiting: Waiting) -> Result<()> {
        if let Some(message) = waiting.message.take() {
            return self.stands(waiting, message).await;
        }
        let room = waiting.report.room_id.clone();
        let Ok(header) = serde_json::from_str::<Header>(waiting.raw.get()) else {
            return Ok(());
        };
        match self.decrypted(&room, &header, &waiting.raw).await? {
            Outcome::Open(opened) => {
                undecryptable::forget(self.unit, &waiting).await?;
                let waited_ms = self.context.now_ms.saturating_sub(waiting.report.received_ms);
                self.opened(&room, header, *opened, Some(waited_ms)).await?;
            }
            Outcome::Closed(closed) => {
                if let Some(reason) = closed.rejected {
                    undecryptable::forget(self.unit, &waiting).await?;
                    self.reject(&room, header, reason);
                    return Ok(());
                }
                let reason = self.dated(closed.reason, header.origin_server_ts).await?;
                if reason == waiting.report.reason {
                    return Ok(());
                }
                waiting.report.advice = reason.advice().to_owned();
                waiting.report.reason = reason;
                if waiting.report.reason.may_still_come() {
                    undecryptable::update(self.unit, &waiting)?;
                } else {
                    undecryptable::forget(self.unit, &waiting).await?;
                    self.used(&room, &header, closed.place).await?;
                    self.events.push(Event::Undecryptable(waiting.report));
                }
            }
        }
        Ok(())
    }

    /// Try an event of before this device: it is delivered, or nothing.
    pub(super) async fn again(&mut self, room: &RoomId, raw: &RawValue) -> Result<()> {
        let Ok(header) = serde_json::from_str::<Header>(raw.get()) else {
            return Ok(());
        };
        match self.decrypted(room, &header, raw).await? {
            Outcome::Open(opened) => self.opened(room, header, *opened, None).await,
            Outcome::Closed(_) => Ok(()),
        }
    }

    /// We are not in the room any more: no key will come for what waits there.
    pub(super) async fn left(&mut self, room: &RoomId) -> Result<()> {
        let gone = undecryptable::leave(self.unit, room).await?;
        self.lost(gone, LostBecause::LeftRoom);
        Ok(())
    }

    fn lost(&mut self, gone: Vec<Waiting>, because: LostBecause) {
        self.events
            .extend(gone.into_iter().map(|waiting| waiting.lost(because)));
    }

    /// What a sync shows of one room, once. Returns whether anything of it is new.
    pub(super) async fn shown(&mut self, room: &OwnedRoomId, mut timeline: Vec<Box<RawValue>>) -> Result<bool> {
        let before = Seen::load(self.unit, room).await?;
        let mut after = before.clone().unwrap_or_default();
        let any_new = after.take(&mut timeline);
        if self.context.first_sync {
            let history = timeline.len().saturating_sub(self.context.first_timeline);
            timeline.drain(..history);
        }
        self.room(room, timeline).await?;
        if before.as_ref() != Some(&after) {
            after.save(self.unit, room)?;
        }
        Ok(any_new)
    }

    /// The new events of one room, in their order.
    async fn room(&mut self, room: &OwnedRoomId, timeline: Vec<Box<RawValue>>) -> Result<()> {
        let encrypted_room = RoomRecord::load(self.unit, room).await?.encryption.is_some();
        for raw in timeline {
            let Ok(header) = serde_json::from_str::<Header>(raw.get()) else {
                let named = serde_json::from_str::<Named>(raw.get()).ok();
                self.events.push(Event::Malformed(Malformed {
                    room_id: room.clone(),
                    event_id: named.and_then(|named| named.event_id),
                }));
                continue;
            };
            if header.state_key.is_some() {
                self.state(room, header, &raw);
            } else if header.event_type == "m.room.encrypted" && header.unsigned.redacted_because.is_none() {
                self.senders.insert(header.sender.clone());
                self.encrypted(room, header, raw).await?;
            } else if header.event_type != "m.room.encrypted" {
                self.plaintext(room, header, encrypted_room).await?;
            }
        }
        Ok(())
    }

    async fn encrypted(&mut self, room: &RoomId, header: Header, raw: Box<RawValue>) -> Result<()> {
        match self.decrypted(room, &header, &raw).await? {
            Outcome::Open(opened) => self.opened(room, header, *opened, None).await,
            Outcome::Closed(closed) => self.closed(room, header, raw, closed).await,
        }
    }

    /// An event as far as it may be given to the app: one whose sender is not accepted is as good as closed.
    async fn decrypted(&self, room: &RoomId, header: &Header, raw: &RawValue) -> Result<Outcome> {
        let mut opened = match decrypt::decrypt(self.machine, room, raw).await? {
            Outcome::Open(opened) => opened,
            closed @ Outcome::Closed(_) => return Ok(closed),
        };
        let (manifest, info) = (&self.context.manifest, &opened.decrypted.encryption_info);
        opened.trust = standing::standing(self.machine, self.unit, manifest, &header.sender, info).await?;
        let is_accepted = self.context.accept.takes(opened.trust)
            || standing::is_own(self.machine, &header.sender, &opened.decrypted.encryption_info)
            || decrypt::not_the_senders(self.machine, room, &header.sender, &opened)
                .await?
                .is_some()
            // Verifying is how somebody comes to be accepted. It is never told to the app.
            || opened.is_of_a_verification_with(self.machine.user_id());
        if is_accepted {
            return Ok(Outcome::Open(opened));
        }
        Ok(Outcome::Closed(Closed {
            reason: UndecryptableReason::NotAccepted { trust: opened.trust },
            rejected: None,
            place: Some(opened.place),
        }))
    }

    /// A message whose key opened it and that is not an event: its place is used all the same.
    async fn used(&self, room: &RoomId, header: &Header, place: Option<MessagePlace>) -> Result<()> {
        if let Some(place) = place {
            replay::check(self.unit, place_of(room, header, &place)).await?;
        }
        Ok(())
    }

    async fn opened(
        &mut self,
        room: &RoomId,
        header: Header,
        mut opened: Opened,
        waited_ms: Option<u64>,
    ) -> Result<()> {
        let place = place_of(room, &header, &opened.place);
        let rejected = match replay::look(self.unit, place).await? {
            Verdict::Seen => return Ok(()),
            Verdict::Replay { first } => Some(RejectedReason::Replay { first }),
            Verdict::IndexReuse { first } => Some(RejectedReason::IndexReuse { first }),
            Verdict::New => decrypt::not_the_senders(self.machine, room, &header.sender, &opened).await?,
        };
        if let Some(reason) = rejected {
            self.reject(room, header, reason);
            return Ok(());
        }
        replay::record(self.unit, place)?;
        let own = standing::is_own(self.machine, &header.sender, &opened.decrypted.encryption_info);
        if own {
            let (place, now_ms) = (&opened.place, self.context.now_ms);
            let look = rollback::look_at_own(
                self.machine,
                self.unit,
                room,
                &place.session,
                place.index,
                &header.event_id,
                now_ms,
            );
            look.await?;
        }
        if own && !self.context.deliver_own {
            return Ok(());
        }
        let relation = opened.relation.take();
        let inside = match inside::read(opened.decrypted.event.json(), relation) {
            Ok(inside) => inside,
            Err(inside::Wrong::Rejected(reason)) => {
                self.reject(room, header, reason);
                return Ok(());
            }
            Err(inside::Wrong::NoEvent) => {
                self.never(room, header, UndecryptableReason::BadPayload);
                return Ok(());
            }
        };
        self.message(room, header, inside, opened, waited_ms).await
    }

    fn reject(&mut self, room: &RoomId, header: Header, reason: RejectedReason) {
        self.events.push(Event::Rejected(Rejected {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            reason,
        }));
    }

    /// No key will ever make an event of it.
    fn never(&mut self, room: &RoomId, header: Header, reason: UndecryptableReason) {
        let report = self.report(room, header, reason, None);
        self.events.push(Event::Undecryptable(report));
    }

    fn report(
        &self,
        room: &RoomId,
        header: Header,
        reason: UndecryptableReason,
        place: Option<&MessagePlace>,
    ) -> Undecryptable {
        Undecryptable {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            session_id: place.map(|place| place.session.clone()),
            claimed_device: place.and_then(|place| place.claimed_device.clone()),
            received_ms: self.context.now_ms,
            advice: reason.advice().to_owned(),
            reason,
        }
    }

    /// A key that is missing for an event from before this device was never sent to us. A backup may have it.
    async fn dated(&self, reason: UndecryptableReason, origin_server_ts: u64) -> Result<UndecryptableReason> {
        if reason != UndecryptableReason::MissingRoomKey {
            return Ok(reason);
        }
        Ok(if is_active(self.machine, self.unit).await? {
            UndecryptableReason::ExpectedFromBackup
        } else if origin_server_ts < self.device_since_ms {
            UndecryptableReason::BeforeThisDevice
        } else {
            UndecryptableReason::MissingRoomKey
        })
    }

    async fn closed(&mut self, room: &RoomId, header: Header, raw: Box<RawValue>, closed: Closed) -> Result<()> {
        if self.context.first_sync && header.origin_server_ts < self.device_since_ms {
            self.summary.before_this_device += 1;
            if closed.rejected.is_none() && closed.reason.may_still_come() {
                before::keep(self.unit, room, raw).await?;
            }
            return Ok(());
        }
        if let Some(reason) = closed.rejected {
            self.reject(room, header, reason);
            return Ok(());
        }
        if closed.reason == UndecryptableReason::BadPayload
            && let Some(place) = &closed.place
            && replay::check(self.unit, place_of(room, &header, place)).await? == Verdict::Seen
        {
            return Ok(());
        }
        self.look_for_a_copy(room, &header, &closed).await?;
        let reason = self.dated(closed.reason, header.origin_server_ts).await?;
        let report = self.report(room, header, reason, closed.place.as_ref());
        if !report.reason.may_still_come() {
            self.events.push(Event::Undecryptable(report));
            return Ok(());
        }
        let report_at_ms = self.context.now_ms.saturating_add(self.context.report_after_ms);
        let waiting = Waiting::new(raw, report);
        if let Some(gone) = undecryptable::keep(self.unit, waiting, report_at_ms, self.context.most_waiting).await? {
            self.summary.waiting += 1;
            self.lost(gone, LostBecause::TooMany);
        }
        Ok(())
    }

    /// Another copy of this store may have made what is not opened here.
    async fn look_for_a_copy(&self, room: &RoomId, header: &Header, closed: &Closed) -> Result<()> {
        let claimed = closed.place.as_ref().and_then(|place| place.claimed_device.as_deref());
        let is_own = header.sender == self.machine.user_id() && claimed == Some(self.machine.device_id());
        if !is_own || closed.reason != UndecryptableReason::MissingRoomKey {
            return Ok(());
        }
        let unopened = Unopened {
            room,
            event: &header.event_id,
            origin_server_ts: header.origin_server_ts,
        };
        rollback::look_at_unopened(self.machine, self.unit, unopened, self.context.now_ms).await
    }
}

/// What is held against the places that were used before.
fn place_of<'p>(room: &'p RoomId, header: &'p Header, place: &'p MessagePlace) -> Place<'p> {
    Place {
        room,
        session: &place.session,
        index: place.index,
        ciphertext: &place.ciphertext,
        event: &header.event_id,
        origin_server_ts: header.origin_server_ts,
    }
}
