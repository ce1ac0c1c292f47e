//! One call sends: whom it is for, the room key to them, the ciphertext into the outbox, and only then the event.
//!
//! # Order
//! 1. The content is checked, and it waits in its room's lane ([`lane`]). Rooms do not wait for each other.
//! 2. Whoever has the lane's turn drives it ([`drive`]): what is on its way goes first, so that a room's order is kept.
//! 3. The state is caught up with a sync, unless a recent one did.
//! 4. Members, devices and sessions are made complete over the network ([`recipients`]). Nothing has changed yet that a
//!    refusal would have to undo. Unit: the room key is shared ([`share`]); commit. It goes to every device, all of it
//!    before the event ([`deliver`]). A room that is still as it was found needs nothing of this ([`steady`]).
//! 5. Unit: all that waits is encrypted, and its ciphertext is in the outbox ([`outbox`]); commit. It is put, with the same
//!    bytes and transaction id at every attempt.

pub(crate) mod audience;
mod content;
mod coverage;
mod deliver;
mod drive;
mod failure;
mod lane;
mod lanes;
pub(crate) mod outbox;
pub(crate) mod policy;
mod progress;
pub(crate) mod readership;
mod receipt;
mod recipients;
pub(crate) mod rotation;
mod share;
mod steady;

use futures_util::{StreamExt, stream};
use ruma::{OwnedEventId, OwnedRoomId, TransactionId};

pub(crate) use self::lanes::Lanes;
use self::{content::Frame, policy::Care};
pub use self::{
    policy::{Recipients, RoomPolicy},
    progress::{Progress, ProgressStep},
    readership::{Outlook, Reader, ReaderDevice, ReaderIdentity, ReaderTrust, Readership, Refusal, RoomKeyStatus},
    receipt::{Device, DeviceOutcome, DeviceReceipt, SendReceipt, Warning},
    rotation::RotationReason,
};
use crate::{Error, Orchestrator, Result};

/// How many rooms are flushed at once.
const ROOMS_AT_ONCE: usize = 8;

/// What is to be sent.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{Outgoing, Recipients};
///
/// let reading = Outgoing {
///     room_id: room.to_owned(),
///     event_type: "org.example.reading".into(),
///     content: serde_json::json!({"sensor": "cellar", "celsius": "14.2"}),
///     recipients: Some(Recipients::OnlyTrusted),
///     into_tombstoned: false,
/// };
/// println!("{}", device.send(reading).await?.event_id);
/// # Ok(()) }
/// ```
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
    /// Sends to one room happen in the order of the calls; rooms do not wait for each other. Sends to one room that wait
    /// at the same time are encrypted together, in one commit.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, what: mx_olm_orchestrator::Outgoing) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::Error;
    ///
    /// match device.send(what).await {
    ///     Ok(sent) => println!("{} devices can read {}", sent.readable_by(), sent.event_id),
    ///     // Do not send it again: it is on the disk, and goes out once.
    ///     Err(Error::SendPending { transaction_id, .. }) => println!("{transaction_id} is sent later"),
    ///     Err(error) => println!("it was not sent [{}]: {error}", error.code()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::RoomNotEncrypted`], [`Error::UnsupportedAlgorithm`], [`Error::NotInRoom`], [`Error::RoomTombstoned`],
    /// [`Error::MembersIncomplete`], [`Error::RecipientNotAllowed`], [`Error::RecipientsUnknown`],
    /// [`Error::IdentityChanged`], [`Error::NoUsableRecipients`], [`Error::TooLarge`], [`Error::BadContent`]: nothing was
    /// sent and the room key was not used. [`Error::KeyShareIncomplete`]: nothing was sent but parts of the room key.
    /// [`Error::SendPending`]: the event is in the outbox. [`Error::EarlierSendPending`]: another one of this room is,
    /// and this one was not taken. Else of the request, of the store.
    ///
    /// # Cancel safety
    /// A future that is dropped early may have sent the room key, which is harmless, or left the event in the outbox,
    /// from where it is sent with the next send to this room, the next sync, or [`flush_outbox`](Self::flush_outbox).
    pub async fn send(&self, outgoing: Outgoing) -> Result<SendReceipt> {
        let frame = Frame {
            room: &outgoing.room_id,
            user: self.user_id(),
            device: self.device_id(),
        };
        let checked = content::check(frame, &outgoing.event_type, &outgoing.content)?;
        let lane = self.lanes().of(self.store(), &outgoing.room_id).await?;
        let care = Care {
            recipients: outgoing.recipients,
            into_tombstoned: outgoing.into_tombstoned,
        };
        let mut ended = lane.wait_in_line(checked, care);
        let mut turn = tokio::select! {
            biased;
            ended = &mut ended => return ended.unwrap_or(Err(Error::EngineStopped)),
            turn = lane.turn.lock() => turn,
        };
        Box::pin(self.drive(&lane, &mut turn, &mut ended)).await
    }

    /// Send an event as plaintext, because the caller says so.
    ///
    /// # Errors
    /// [`Error::RoomIsEncrypted`], [`Error::TooLarge`], [`Error::BadContent`]; of the request.
    pub async fn send_plaintext(&self, outgoing: Outgoing) -> Result<OwnedEventId> {
        let content = content::check_plaintext(&outgoing.room_id, self.user_id(), &outgoing.content)?;
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

    /// Send what an earlier call, or an earlier process, encrypted and could not confirm: room by room in order, and no
    /// room waits for another. How many were confirmed.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// // After a start, and before anything else is said.
    /// match device.flush_outbox().await {
    ///     Ok(confirmed) => println!("{confirmed} events of before were sent"),
    ///     Err(error) => println!("some are sent later [{}]", error.code()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::SendPending`] when the homeserver still does not confirm one; the other rooms are tried all the same.
    /// Events that it refuses for good are dropped. The inbox tells of both: [`Event::Sent`](crate::Event::Sent),
    /// [`Event::SendRefused`](crate::Event::SendRefused).
    ///
    /// # Cancel safety
    /// Safe: a homeserver takes the same transaction id once.
    pub async fn flush_outbox(&self) -> Result<usize> {
        let lanes = self.lanes().busy(self.store()).await?;
        let results: Vec<Result<usize>> = stream::iter(lanes)
            .map(|lane| async move {
                let _turn = lane.turn.lock().await;
                self.clear(&lane).await
            })
            .buffer_unordered(ROOMS_AT_ONCE)
            .collect()
            .await;
        results.into_iter().sum()
    }

    /// As [`flush_outbox`](Self::flush_outbox), as part of something that happens with every sync: rooms that somebody
    /// sends to do it themselves, and what was tried a moment ago waits.
    pub(crate) async fn flush_idle_rooms(&self) -> Result<()> {
        let lanes = self.lanes().busy(self.store()).await?;
        let idle = lanes.into_iter().filter(|lane| !lane.pauses());
        let results: Vec<Result<usize>> = stream::iter(idle)
            .map(|lane| async move {
                match lane.turn.try_lock() {
                    Ok(_turn) => self.clear(&lane).await,
                    Err(_) => Ok(0),
                }
            })
            .buffer_unordered(ROOMS_AT_ONCE)
            .collect()
            .await;
        results.into_iter().sum::<Result<usize>>().map(drop)
    }
}
