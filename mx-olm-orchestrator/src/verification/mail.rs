//! What is said to the other side of verifications: in order, outside of units, and in a room by the way of all events.

use std::collections::VecDeque;

use matrix_sdk_crypto::types::requests::{OutgoingVerificationRequest, RoomMessageRequest, ToDeviceRequest};
use ruma::{OwnedEventId, OwnedRoomId, events::MessageLikeEventContent};

use super::{VerificationId, flow};
use crate::{Error, Orchestrator, Outgoing, Result, machine::Ending, outgoing};

/// More often than this nothing is tried.
const MOST_ATTEMPTS: u32 = 5;

/// Something to say.
#[derive(Clone)]
pub(crate) struct Mail {
    /// For which verification; none where the engine does not say.
    id: Option<VerificationId>,
    parcel: Parcel,
    /// It is the last: its record goes when it has left.
    farewell: bool,
    attempts: u32,
}

/// Contents stay out of logs.
impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mail").field("id", &self.id).finish_non_exhaustive()
    }
}

/// On which way.
#[derive(Clone)]
pub(super) enum Parcel {
    ToDevice(ToDeviceRequest),
    Room {
        room: OwnedRoomId,
        event_type: String,
        content: serde_json::Value,
    },
}

impl Mail {
    pub(super) const fn new(id: VerificationId, parcel: Parcel) -> Self {
        Self {
            id: Some(id),
            parcel,
            farewell: false,
            attempts: 0,
        }
    }

    pub(super) const fn farewell(mut self) -> Self {
        self.farewell = true;
        self
    }

    /// Both are the last word of one verification.
    pub(super) fn is_same_farewell(&self, other: &Self) -> bool {
        self.farewell && other.farewell && self.id == other.id
    }

    pub(super) fn of(id: &VerificationId, request: &OutgoingVerificationRequest) -> Option<Self> {
        let parcel = match request {
            OutgoingVerificationRequest::ToDevice(request) => Parcel::ToDevice(request.clone()),
            OutgoingVerificationRequest::InRoom(message) => in_room(message)?,
        };
        Some(Self::new(id.clone(), parcel))
    }

    /// Something that belongs to no verification.
    pub(super) const fn of_device(request: ToDeviceRequest) -> Self {
        Self {
            id: None,
            parcel: Parcel::ToDevice(request),
            farewell: false,
            attempts: 0,
        }
    }

    /// A message that the engine wants in a room.
    pub(crate) fn of_room(message: &RoomMessageRequest) -> Option<Self> {
        Some(Self {
            id: None,
            parcel: in_room(message)?,
            farewell: false,
            attempts: 0,
        })
    }
}

fn in_room(message: &RoomMessageRequest) -> Option<Parcel> {
    Some(Parcel::Room {
        room: message.room_id.clone(),
        event_type: message.content.event_type().to_string(),
        content: serde_json::to_value(&*message.content).ok()?,
    })
}

/// What waits to be said, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbound(VecDeque<Mail>);

impl Outbound {
    pub(super) fn add(&mut self, mail: impl IntoIterator<Item = Mail>) {
        self.0.extend(mail);
    }

    /// Whether the farewell of this verification waits.
    pub(super) fn holds(&self, id: &VerificationId) -> bool {
        self.0.iter().any(|mail| mail.farewell && mail.id.as_ref() == Some(id))
    }

    fn first(&self) -> Option<Mail> {
        self.0.front().cloned()
    }

    fn done(&mut self) {
        self.0.pop_front();
    }

    fn again(&mut self, attempts: u32) {
        if let Some(first) = self.0.front_mut() {
            first.attempts = attempts;
        }
    }
}

impl Orchestrator {
    /// The engine wants this said in a room.
    pub(crate) fn post_later(&self, message: &RoomMessageRequest) {
        self.verification().outbound().add(Mail::of_room(message));
    }

    /// Say what waits, until there is nothing or something does not get through: that is tried again with the next sync.
    ///
    /// # Errors
    /// Of the store.
    pub(crate) async fn post_verifications(&self) -> Result<()> {
        let _in_order = self.verification().posting.lock().await;
        loop {
            let Some(mail) = self.verification().outbound().first() else {
                return Ok(());
            };
            match self.carry(&mail.parcel).await {
                Ok(()) => {}
                Err(error @ Error::Store(_)) => return Err(error),
                Err(error) if mail.attempts + 1 < MOST_ATTEMPTS => {
                    tracing::warn!(
                        code = error.code(),
                        "a message of a verification did not get through: it is sent again"
                    );
                    self.verification().outbound().again(mail.attempts + 1);
                    return Ok(());
                }
                // The verification ends by itself when its time is over.
                Err(error) => tracing::warn!(code = error.code(), "a message of a verification is given up"),
            }
            self.verification().outbound().done();
            if mail.farewell
                && let Some(id) = mail.id
            {
                self.machine()
                    .unit(move |_, unit| {
                        Box::pin(async move {
                            flow::forget(unit, &id).await?;
                            Ok(Ending::Commit(()))
                        })
                    })
                    .await?;
            }
        }
    }

    async fn carry(&self, parcel: &Parcel) -> Result<()> {
        match parcel {
            Parcel::ToDevice(request) => {
                outgoing::to_device(self.homeserver(), request).await?;
                Ok(())
            }
            Parcel::Room {
                room,
                event_type,
                content,
            } => self
                .say_in_room(room.clone(), event_type.clone(), content.clone())
                .await
                .map(drop)
                .or_else(|error| match error {
                    // It leaves with the next send or sync, once.
                    Error::SendPending { .. } => Ok(()),
                    error => Err(error),
                }),
        }
    }

    /// Send an event of a verification into a room: encrypted where the room is.
    pub(super) async fn say_in_room(
        &self,
        room: OwnedRoomId,
        event_type: String,
        content: serde_json::Value,
    ) -> Result<OwnedEventId> {
        let outgoing = Outgoing {
            room_id: room,
            event_type,
            content,
            recipients: None,
            into_tombstoned: false,
        };
        match Box::pin(self.send(outgoing.clone())).await {
            Ok(receipt) => Ok(receipt.event_id),
            Err(Error::RoomNotEncrypted { .. }) => self.send_plaintext(outgoing).await,
            Err(error) => Err(error),
        }
    }
}
