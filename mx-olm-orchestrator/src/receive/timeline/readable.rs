//! What can be read: it is heard by a verification, or told to the app.

use ruma::RoomId;

use super::{Header, Timelines};
use crate::{
    Encryption, Event, Message, RejectedReason, Result, UndecryptableReason,
    receive::{
        decrypt::Opened,
        hand_out::{self, Standing},
        inside::Inside,
        undecryptable::{self, Waiting},
    },
    verification::{Attention, RoomEvent},
};

impl Timelines<'_> {
    pub(super) async fn plaintext(&mut self, room: &RoomId, header: Header, encrypted_room: bool) -> Result<()> {
        let history = self.context.first_sync && header.origin_server_ts < self.device_since_ms;
        let own_echo = header.sender == self.context.user && header.unsigned.transaction_id.is_some();
        if history || (own_echo && !self.context.deliver_own) {
            return Ok(());
        }
        // Also where the room is encrypted: matrix-js-sdk sends every step so, as the specification lets it. A verification
        // is made for a way that nobody trusts: what somebody on it writes can cancel one, as he can by dropping it.
        match self.heard(header.as_room_event(room, None)).await? {
            Attention::None => {}
            Attention::Paid => return Ok(()),
            Attention::Refused => {
                self.reject(room, header, RejectedReason::UnusableVerification);
                return Ok(());
            }
        }
        let plaintext_in_encrypted_room = encrypted_room && header.event_type != "m.room.redaction";
        if plaintext_in_encrypted_room && !self.context.accept.takes_plaintext() {
            self.reject(room, header, RejectedReason::Plaintext);
            return Ok(());
        }
        let mut content = header.content;
        if header.event_type == "m.room.redaction"
            && let (Some(content), Some(redacts)) = (content.as_object_mut(), header.redacts)
        {
            content.entry("redacts").or_insert(redacts);
        }
        self.events.push(Event::Message(Message {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            // A redaction of an encrypted event is plaintext by the specification.
            plaintext_in_encrypted_room,
            event_type: header.event_type,
            content,
            encryption: None,
        }));
        Ok(())
    }

    /// Look again at a message that was taken, and waits for its sender to be accepted.
    pub(super) async fn stands(&mut self, mut waiting: Waiting, mut message: Box<Message>) -> Result<()> {
        match hand_out::look_again(self.machine, self.unit, self.context, &mut message).await? {
            Standing::Waits(trust) => {
                let reason = UndecryptableReason::NotAccepted { trust };
                if reason != waiting.report.reason {
                    waiting.report.reason = reason;
                    waiting.message = Some(message);
                    undecryptable::update(self.unit, &waiting)?;
                }
                return Ok(());
            }
            Standing::Given | Standing::Plaintext => {}
        }
        undecryptable::forget(self.unit, &waiting).await?;
        if let Some(encryption) = &mut message.encryption {
            encryption.waited_ms = Some(self.context.now_ms.saturating_sub(waiting.report.received_ms));
        }
        self.events.push(Event::Message(*message));
        Ok(())
    }

    /// A message that may be believed.
    pub(super) async fn message(
        &mut self,
        room: &RoomId,
        header: Header,
        inside: Inside,
        opened: Opened,
        waited_ms: Option<u64>,
    ) -> Result<()> {
        let info = &opened.decrypted.encryption_info;
        let event = RoomEvent {
            room,
            event_id: &header.event_id,
            sender: &header.sender,
            origin_server_ts: header.origin_server_ts,
            event_type: &inside.event_type,
            content: &inside.content,
            device: info.sender_device.as_deref(),
        };
        match self.heard(event).await? {
            Attention::None => {}
            Attention::Paid => return Ok(()),
            Attention::Refused => {
                self.reject(room, header, RejectedReason::UnusableVerification);
                return Ok(());
            }
        }
        self.events.push(Event::Message(Message {
            room_id: room.to_owned(),
            event_id: header.event_id,
            sender: header.sender,
            origin_server_ts: header.origin_server_ts,
            event_type: inside.event_type,
            content: inside.content,
            encryption: Some(Encryption {
                sender_device: info.sender_device.clone(),
                session_id: opened.place.session,
                trust: opened.trust,
                waited_ms,
            }),
            plaintext_in_encrypted_room: false,
        }));
        Ok(())
    }
}
