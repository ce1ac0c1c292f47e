//! What is said to the other side of verifications: in order, outside of units, and in a room by the way of all events.

use std::collections::VecDeque;

use matrix_sdk_crypto::types::requests::{OutgoingVerificationRequest, RoomMessageRequest, ToDeviceRequest};
use mx_transport::RequestError;
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

    /// The oldest of those that do not wait behind one that did not get through, and where it is.
    fn first_beside(&self, stuck: &[Option<VerificationId>]) -> Option<(usize, Mail)> {
        let mut waiting = self.0.iter().enumerate();
        let found = waiting.find(|(_, mail)| !stuck.contains(&mail.id));
        found.map(|(at, mail)| (at, mail.clone()))
    }

    fn done(&mut self, at: usize) {
        self.0.remove(at);
    }

    fn again(&mut self, at: usize, attempts: u32) {
        if let Some(mail) = self.0.get_mut(at) {
            mail.attempts = attempts;
        }
    }
}

impl Orchestrator {
    /// The engine wants this said in a room.
    pub(crate) fn post_later(&self, message: &RoomMessageRequest) {
        self.verification().outbound().add(Mail::of_room(message));
    }

    /// Say what waits, each verification's in its order. What does not get through is tried again with the next sync, and
    /// what comes after it in its verification waits; the other verifications go on, unless the homeserver is out of reach.
    ///
    /// # Errors
    /// Of the store.
    pub(crate) async fn post_verifications(&self) -> Result<()> {
        let _in_order = self.verification().posting.lock().await;
        let mut stuck = Vec::new();
        loop {
            // Only this removes anything, and what comes meanwhile comes at the end.
            let Some((at, mail)) = self.verification().outbound().first_beside(&stuck) else {
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
                    self.verification().outbound().again(at, mail.attempts + 1);
                    if matches!(error, Error::Request(RequestError::Transport(_))) {
                        return Ok(());
                    }
                    stuck.push(mail.id);
                    continue;
                }
                // The verification ends by itself when its time is over.
                Err(error) => tracing::warn!(code = error.code(), "a message of a verification is given up"),
            }
            self.verification().outbound().done(at);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(id: Option<&str>, number: u32) -> Mail {
        let room = ruma::room_id!("!r:x").to_owned();
        let parcel = Parcel::Room {
            room: room.clone(),
            event_type: number.to_string(),
            content: serde_json::Value::Null,
        };
        Mail {
            id: id.map(|flow| VerificationId {
                user_id: ruma::user_id!("@a:x").to_owned(),
                flow_id: flow.to_owned(),
            }),
            parcel,
            farewell: false,
            attempts: 0,
        }
    }

    fn number(mail: &Mail) -> &str {
        match &mail.parcel {
            Parcel::Room { event_type, .. } => event_type,
            Parcel::ToDevice(_) => "",
        }
    }

    #[test]
    fn one_that_is_refused_holds_up_its_own_verification_and_no_other() {
        let mut outbound = Outbound::default();
        outbound.add([
            mail(Some("a"), 1),
            mail(Some("b"), 2),
            mail(Some("a"), 3),
            mail(None, 4),
            mail(Some("b"), 5),
        ]);
        let mut stuck = Vec::new();
        let mut said = Vec::new();
        while let Some((at, mail)) = outbound.first_beside(&stuck) {
            if mail.id.as_ref().is_some_and(|id| id.flow_id == "a") {
                outbound.again(at, 1);
                stuck.push(mail.id);
            } else {
                said.push(number(&mail).to_owned());
                outbound.done(at);
            }
        }
        assert_eq!(said, ["2", "4", "5"]);
        let left: Vec<_> = outbound.0.iter().map(|mail| (number(mail), mail.attempts)).collect();
        assert_eq!(left, [("1", 1), ("3", 0)]);
    }
}
