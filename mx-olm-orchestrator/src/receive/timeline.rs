//! Room timelines: from what the homeserver gave to what the app is told.

use std::collections::BTreeSet;

use matrix_sdk_common::deserialized_responses::{
    AlgorithmInfo, DecryptedRoomEvent, UnableToDecryptInfo, UnableToDecryptReason, VerificationLevel, VerificationState,
};
use matrix_sdk_crypto::{
    OlmMachine, RoomEventDecryptionResult,
    types::events::room::encrypted::{EncryptedEvent, RoomEventEncryptionScheme},
};
use mx_crypto_store::Unit;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, serde::Raw};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Context, SyncSummary, decryption_settings,
    replay::{self, Verdict},
    undecryptable::{self, Waiting},
};
use crate::{
    Encryption, Event, Message, Rejected, RejectedReason, Result, Trust, Undecryptable, UndecryptableReason,
    rooms::RoomRecord,
};

/// What every room event has.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "type")]
    event_type: String,
    event_id: OwnedEventId,
    sender: OwnedUserId,
    #[serde(default)]
    origin_server_ts: u64,
    #[serde(default)]
    state_key: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    content: serde_json::Value,
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    transaction_id: Option<serde::de::IgnoredAny>,
    redacted_because: Option<serde::de::IgnoredAny>,
}

/// What is inside of a decrypted event.
#[derive(Deserialize)]
struct Decrypted {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(default)]
    content: serde_json::Value,
}

/// The timelines of one sync.
pub(super) struct Timelines<'a> {
    machine: &'a OlmMachine,
    unit: &'a Unit,
    context: &'a Context,
    summary: &'a mut SyncSummary,
    events: &'a mut Vec<Event>,
    senders: BTreeSet<OwnedUserId>,
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
            device_since_ms,
        }
    }

    /// Who sent encrypted events: their devices are worth knowing.
    pub(super) fn into_senders(self) -> BTreeSet<OwnedUserId> {
        self.senders
    }

    /// A key came: what waited for it is tried again.
    pub(super) async fn retry(&mut self, room: &RoomId, session: &str) -> Result<()> {
        for waiting in undecryptable::waiting_for(self.unit, room, session).await? {
            let Ok(header) = serde_json::from_str::<Header>(waiting.raw.get()) else {
                continue;
            };
            match self.decrypt(room, &waiting.raw).await? {
                Outcome::Open(decrypted, index) => {
                    undecryptable::forget(self.unit, &waiting, session)?;
                    self.opened(room, header, &decrypted, index).await?;
                }
                Outcome::Closed(reason, _) if !reason.may_still_come() => {
                    undecryptable::forget(self.unit, &waiting, session)?;
                    self.events.push(Event::Undecryptable(Undecryptable {
                        advice: reason.advice().to_owned(),
                        reason,
                        ..waiting.report
                    }));
                }
                Outcome::Closed(..) => {}
            }
        }
        Ok(())
    }

    /// The new events of one room, in their order.
    pub(super) async fn room(&mut self, room: &OwnedRoomId, timeline: Vec<Box<RawValue>>) -> Result<()> {
        let encrypted_room = RoomRecord::load(self.unit, room).await?.encryption.is_some();
        for raw in timeline {
            let Ok(header) = serde_json::from_str::<Header>(raw.get()) else {
                self.summary.unreadable.push("an event".to_owned());
                continue;
            };
            if header.state_key.is_some() {
                continue;
            }
            if header.event_type == "m.room.encrypted" && header.unsigned.redacted_because.is_none() {
                self.senders.insert(header.sender.clone());
                self.encrypted(room, header, raw).await?;
            } else if header.event_type != "m.room.encrypted" {
                self.plaintext(room, header, encrypted_room);
            }
        }
        Ok(())
    }

    fn plaintext(&mut self, room: &RoomId, header: Header, encrypted_room: bool) {
        let history = self.context.first_sync && header.origin_server_ts < self.device_since_ms;
        let own_echo = header.sender == self.context.user && header.unsigned.transaction_id.is_some();
        if history || (own_echo && !self.context.deliver_own) {
            return;
        }
        self.events.push(Event::Message(Message {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            // A redaction of an encrypted event is plaintext by the specification.
            plaintext_in_encrypted_room: encrypted_room && header.event_type != "m.room.redaction",
            event_type: header.event_type,
            content: header.content,
            encryption: None,
        }));
    }

    async fn encrypted(&mut self, room: &RoomId, header: Header, raw: Box<RawValue>) -> Result<()> {
        match self.decrypt(room, &raw).await? {
            Outcome::Open(decrypted, index) => self.opened(room, header, &decrypted, index).await,
            Outcome::Closed(reason, session) => self.closed(room, header, raw, reason, session).await,
        }
    }

    async fn decrypt(&self, room: &RoomId, raw: &RawValue) -> Result<Outcome> {
        let event: Raw<EncryptedEvent> = Raw::from_json(raw.to_owned());
        let Ok(parsed) = event.deserialize() else {
            return Ok(Outcome::Closed(UndecryptableReason::Malformed, None));
        };
        let index = match &parsed.content.scheme {
            RoomEventEncryptionScheme::MegolmV1AesSha2(content) => content.ciphertext.message_index(),
            RoomEventEncryptionScheme::Unknown(_) => return Ok(Outcome::Closed(UndecryptableReason::Malformed, None)),
        };
        let settings = decryption_settings();
        Ok(
            match Box::pin(self.machine.try_decrypt_room_event(&event, room, &settings)).await? {
                RoomEventDecryptionResult::Decrypted(decrypted) => Outcome::Open(Box::new(decrypted), index),
                RoomEventDecryptionResult::UnableToDecrypt(info) => closed_because(info),
            },
        )
    }

    async fn opened(
        &mut self,
        room: &RoomId,
        header: Header,
        decrypted: &DecryptedRoomEvent,
        index: u32,
    ) -> Result<()> {
        let info = &decrypted.encryption_info;
        let AlgorithmInfo::MegolmV1AesSha2 {
            session_id: Some(session_id),
            ..
        } = &info.algorithm_info
        else {
            self.never(room, header, UndecryptableReason::Malformed);
            return Ok(());
        };
        let verdict = replay::check(
            self.unit,
            room,
            session_id,
            index,
            &header.event_id,
            header.origin_server_ts,
        )
        .await?;
        let reason = match (verdict, &info.verification_state) {
            (Verdict::Seen, _) => return Ok(()),
            (Verdict::Replay { first }, _) => Some(RejectedReason::Replay { first }),
            (_, VerificationState::Unverified(VerificationLevel::MismatchedSender)) => {
                Some(RejectedReason::SenderMismatch)
            }
            _ => None,
        };
        if let Some(reason) = reason {
            self.events.push(Event::Rejected(Rejected {
                room_id: room.to_owned(),
                event_id: header.event_id,
                sender: header.sender,
                reason,
            }));
            return Ok(());
        }
        let own = header.sender == self.context.user && info.sender_device.as_ref() == Some(&self.context.device);
        if own && !self.context.deliver_own {
            return Ok(());
        }
        let Ok(inner) = decrypted.event.deserialize_as_unchecked::<Decrypted>() else {
            self.never(room, header, UndecryptableReason::BadPayload);
            return Ok(());
        };
        self.events.push(Event::Message(Message {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            event_type: inner.event_type,
            content: inner.content,
            encryption: Some(Encryption {
                sender_device: info.sender_device.clone(),
                session_id: session_id.clone(),
                trust: trust(&info.verification_state),
            }),
            plaintext_in_encrypted_room: false,
        }));
        Ok(())
    }

    /// No key will ever make an event of it.
    fn never(&mut self, room: &RoomId, header: Header, reason: UndecryptableReason) {
        self.events.push(Event::Undecryptable(Undecryptable {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            advice: reason.advice().to_owned(),
            session_id: None,
            reason,
        }));
    }

    async fn closed(
        &mut self,
        room: &RoomId,
        header: Header,
        raw: Box<RawValue>,
        reason: UndecryptableReason,
        session_id: Option<String>,
    ) -> Result<()> {
        if self.context.first_sync && header.origin_server_ts < self.device_since_ms {
            self.summary.before_this_device += 1;
            return Ok(());
        }
        let report = Undecryptable {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            advice: reason.advice().to_owned(),
            session_id: session_id.clone(),
            reason,
        };
        match session_id {
            Some(session) if report.reason.may_still_come() => {
                let report_at_ms = self.context.now_ms.saturating_add(self.context.report_after_ms);
                if undecryptable::keep(self.unit, &session, &Waiting { raw, report }, report_at_ms).await? {
                    self.summary.waiting += 1;
                }
            }
            _ => self.events.push(Event::Undecryptable(report)),
        }
        Ok(())
    }
}

enum Outcome {
    /// The plaintext, and the index in its Megolm session.
    Open(Box<DecryptedRoomEvent>, u32),
    /// Why not, and the session that it names.
    Closed(UndecryptableReason, Option<String>),
}

fn closed_because(info: UnableToDecryptInfo) -> Outcome {
    let reason = match info.reason {
        UnableToDecryptReason::MissingMegolmSession {
            withheld_code: Some(code),
        } => UndecryptableReason::Withheld {
            withheld: code.as_str().to_owned(),
        },
        UnableToDecryptReason::MissingMegolmSession { withheld_code: None } => UndecryptableReason::MissingRoomKey,
        UnableToDecryptReason::UnknownMegolmMessageIndex => UndecryptableReason::KeyStartsLater,
        UnableToDecryptReason::MalformedEncryptedEvent => UndecryptableReason::Malformed,
        UnableToDecryptReason::PayloadDeserializationFailure => UndecryptableReason::BadPayload,
        _ => UndecryptableReason::BadCiphertext,
    };
    Outcome::Closed(reason, info.session_id)
}

fn trust(state: &VerificationState) -> Trust {
    match state {
        VerificationState::Verified => Trust::Verified,
        VerificationState::Unverified(VerificationLevel::UnverifiedIdentity) => Trust::CrossSigned,
        VerificationState::Unverified(VerificationLevel::VerificationViolation) => Trust::IdentityChanged,
        VerificationState::Unverified(VerificationLevel::UnsignedDevice) => Trust::Unsigned,
        VerificationState::Unverified(_) => Trust::Unknown,
    }
}
