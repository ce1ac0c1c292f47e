//! One call sends: whom it is for, the room key to them, the ciphertext into the outbox, and only then the event.
//!
//! # Order
//! 1. What is in the outbox goes first, so that a room's order is kept.
//! 2. The state is caught up with a sync, unless a recent one did.
//! 3. Members, devices and sessions are made complete over the network. Nothing has changed yet that a refusal would
//!    have to undo.
//! 4. Unit: the room key is shared; commit. It goes to every device, all of it before the event.
//! 5. Unit: the event is encrypted, its ciphertext is in the outbox; commit. It is put, with the same bytes and
//!    transaction id at every attempt.

pub(crate) mod audience;
mod coverage;
pub(crate) mod outbox;
pub(crate) mod policy;
mod receipt;
mod recipients;
pub(crate) mod rotation;
mod share;

use ruma::{OwnedRoomId, RoomId, TransactionId, events::AnyMessageLikeEventContent, serde::Raw};

use self::{outbox::Parcel, recipients::Readers, share::Shared};
pub use self::{
    policy::{Recipients, RoomPolicy},
    receipt::{Device, DeviceOutcome, DeviceReceipt, SendReceipt, Warning},
    rotation::RotationReason,
};
use crate::{Error, Orchestrator, Result, machine::Ending, rooms::MEGOLM};

/// A key may expire, or a sync may show other readers, between its sharing and its use; more often than this means that
/// a clock is broken, or that the room does not come to rest.
const MAX_SHARES: usize = 5;

/// The most that the encrypted content may take, in bytes: the specification's 65,536 for the whole event, less what
/// a homeserver adds around it.
const MAX_CONTENT_BYTES: usize = 65_536 - 4_096;

/// What is to be sent.
#[derive(Clone)]
pub struct Outgoing {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The type of the event inside, such as `m.room.message`.
    pub event_type: String,
    /// Its content: a JSON object.
    pub content: serde_json::Value,
    /// How careful the send is. `None`: as the room's policy says, else the client's.
    pub recipients: Option<Recipients>,
    /// Send although the room was replaced by another one.
    pub into_tombstoned: bool,
}

/// Contents stay out of logs.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("room_id", &self.room_id)
            .field("event_type", &self.event_type)
            .field("recipients", &self.recipients)
            .finish_non_exhaustive()
    }
}

impl Orchestrator {
    /// Encrypt an event for everybody who may read in the room, and send it.
    ///
    /// # Ordering
    /// Sends to one room happen in the order of the calls; rooms do not wait for each other.
    ///
    /// # Errors
    /// [`Error::RoomNotEncrypted`], [`Error::UnsupportedAlgorithm`], [`Error::NotInRoom`], [`Error::RoomTombstoned`],
    /// [`Error::MembersIncomplete`], [`Error::RecipientNotAllowed`], [`Error::RecipientsUnknown`],
    /// [`Error::IdentityChanged`], [`Error::NoUsableRecipients`], [`Error::TooLarge`], [`Error::BadContent`]: nothing was
    /// sent and the room key was not used. [`Error::SendPending`]: the event is in the outbox. [`Error::EarlierSendPending`]: another one is,
    /// and this one was not taken. Else of the request, of the store.
    ///
    /// # Cancel safety
    /// A future that is dropped early may have sent the room key, which is harmless, or left the event in the outbox,
    /// from where it is sent with the next send or [`flush_outbox`](Self::flush_outbox).
    pub async fn send(&self, outgoing: Outgoing) -> Result<SendReceipt> {
        let content = checked(&outgoing.content)?;
        let room = outgoing.room_id.as_ref();
        let lock = self.room_lock(room).await;
        let _in_order = lock.lock().await;
        self.flush_outbox().await.map_err(|error| match error {
            Error::SendPending { transaction_id, source } => Error::EarlierSendPending { transaction_id, source },
            other => other,
        })?;
        self.catch_up().await?;
        let encryption = self.room_encryption(room).await?;
        if encryption.algorithm != MEGOLM {
            return Err(Error::UnsupportedAlgorithm {
                room: room.to_owned(),
                algorithm: encryption.algorithm,
            });
        }
        if !outgoing.into_tombstoned {
            self.refuse_tombstoned(room).await?;
        }
        let policy = self.policy(room, outgoing.recipients).await?;
        let mut overtaken = false;
        for _ in 0..MAX_SHARES {
            let readers = self.readers(room, &policy).await?;
            let shared = self.share(room, &readers, &policy).await?;
            overtaken = shared.is_none();
            let Some(shared) = shared else { continue };
            self.deliver_keys(&shared).await?;
            if let Some(parcel) = self.encrypt(room, &outgoing.event_type, content.clone()).await? {
                return self.put(parcel, shared, &readers).await;
            }
        }
        if overtaken {
            return Err(Error::MembersIncomplete {
                room: room.to_owned(),
                reason: "members or their devices change faster than they can be given a key",
                source: None,
            });
        }
        Err(Error::Engine {
            reason: "the room key expires before it can be used: check the clock".to_owned(),
        })
    }

    /// Send an event as plaintext, because the caller says so.
    ///
    /// # Errors
    /// [`Error::RoomIsEncrypted`]; of the request.
    pub async fn send_plaintext(&self, outgoing: Outgoing) -> Result<ruma::OwnedEventId> {
        let content = checked(&outgoing.content)?;
        match self.room_encryption(&outgoing.room_id).await {
            Ok(_) => Err(Error::RoomIsEncrypted { room: outgoing.room_id }),
            Err(Error::RoomNotEncrypted { .. }) => {
                let transaction = TransactionId::new();
                let request = ruma::api::client::message::send_message_event::v3::Request::new_raw(
                    outgoing.room_id,
                    transaction,
                    outgoing.event_type.into(),
                    content,
                );
                Ok(self.homeserver().send(request).await?.event_id)
            }
            Err(error) => Err(error),
        }
    }

    /// Put every part of the room key that is not delivered yet. All of them, or the event is not sent.
    async fn deliver_keys(&self, shared: &Shared) -> Result<()> {
        for request in &shared.requests {
            let answer = crate::outgoing::to_device(self.homeserver(), request).await?;
            self.mark(&request.txn_id, crate::outgoing::Answer::ToDevice(answer))
                .await?;
        }
        Ok(())
    }

    /// Encrypt into the outbox: one unit. `None`: the key may not be used any more, share one again.
    async fn encrypt(
        &self,
        room: &RoomId,
        event_type: &str,
        content: Raw<AnyMessageLikeEventContent>,
    ) -> Result<Option<Parcel>> {
        let room = room.to_owned();
        let event_type = event_type.to_owned();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    // The engine panics where it meets a key that is missing or expired: look first.
                    let session = machine.store().get_outbound_group_session(&room).await?;
                    let Some(session) = session.filter(|key| key.shared() && !key.expired() && !key.invalidated())
                    else {
                        return Ok(Ending::Undo(None));
                    };
                    let session_id = session.session_id().to_owned();
                    let encrypted = Box::pin(machine.encrypt_room_event_raw(&room, &event_type, &content)).await?;
                    let ciphertext = encrypted.content.into_json();
                    let bytes = ciphertext.get().len();
                    if bytes > MAX_CONTENT_BYTES {
                        return Err(Error::TooLarge {
                            bytes,
                            max: MAX_CONTENT_BYTES,
                        });
                    }
                    let parcel = Parcel::new(room, TransactionId::new(), session_id, ciphertext);
                    Ok(Ending::Commit(Some(outbox::keep(unit, parcel).await?)))
                })
            })
            .await
    }

    async fn put(&self, parcel: Parcel, shared: Shared, readers: &Readers) -> Result<SendReceipt> {
        let event_id = self.put_parcel(&parcel).await?;
        self.note_audience(&parcel.room, shared.audience).await;
        Ok(SendReceipt {
            room_id: parcel.room,
            event_id,
            transaction_id: parcel.transaction,
            session_id: parcel.session,
            new_session: shared.rotation.is_some(),
            rotation: shared.rotation,
            devices: shared.devices,
            users_without_devices: shared.users_without_devices,
            users_unknown: readers.unknown.iter().cloned().collect(),
            recipients_added: shared.recipients_added,
            new_devices: shared.new_devices,
            warnings: shared.warnings,
        })
    }
}

/// A content that every homeserver accepts: an object, no fractions, no integer beyond what JSON's readers hold
/// (appendix "Canonical JSON" of the specification).
fn checked(content: &serde_json::Value) -> Result<Raw<AnyMessageLikeEventContent>> {
    if !content.is_object() {
        return Err(Error::BadContent {
            reason: "an event's content is a JSON object",
        });
    }
    check_numbers(content)?;
    let raw = serde_json::value::to_raw_value(content).map_err(|_| Error::BadContent {
        reason: "it cannot be written as JSON",
    })?;
    Ok(Raw::from_json(raw))
}

fn check_numbers(value: &serde_json::Value) -> Result<()> {
    const MAX: i64 = (1 << 53) - 1;
    match value {
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) if (-MAX..=MAX).contains(&number) => Ok(()),
            Some(_) => Err(Error::BadContent {
                reason: "an integer is beyond ±(2^53 − 1)",
            }),
            None => Err(Error::BadContent {
                reason: "a number is not an integer, or too large",
            }),
        },
        serde_json::Value::Array(values) => values.iter().try_for_each(check_numbers),
        serde_json::Value::Object(values) => values.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_canonical_json_forbids_are_refused() {
        for bad in [
            json!({"a": 1.5}),
            json!({"a": [9_007_199_254_740_992_i64]}),
            json!({"a": {"b": u64::MAX}}),
            json!([]),
            json!("x"),
        ] {
            assert_eq!(checked(&bad).unwrap_err().code(), "bad_content", "{bad}");
        }
        checked(&json!({"a": [9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64, null, true, "1.5"]})).unwrap();
    }
}
