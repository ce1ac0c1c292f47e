//! A room: sending, and who is in it.

pub(crate) mod say;

use mx_olm_orchestrator::{Outgoing, Recipients, RoomPolicy, SendReceipt};
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::{
        membership::{get_member_events, invite_user, leave_room},
        state::{get_state_event_for_key, send_state_event},
    },
    events::{EmptyStateKey, StateEventType, room::encryption::RoomEncryptionEventContent},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Client, Error, Result};

/// A room of a [`Client`].
#[derive(Clone, Debug)]
pub struct Room {
    client: Client,
    id: OwnedRoomId,
}

/// What is different about one send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// How careful the send is. `None`: as the room's policy says, else the client's.
    pub recipients: Option<Recipients>,
    /// Send although the room was replaced by another one.
    pub into_tombstoned: bool,
}

/// Somebody in a room.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user_id: OwnedUserId,
    /// `join`, `invite`, `leave`, `ban` or `knock`.
    pub membership: String,
    /// What they call themselves in this room. Anybody can be called anything.
    pub display_name: Option<String>,
}

impl Room {
    pub(crate) const fn new(client: Client, id: OwnedRoomId) -> Self {
        Self { client, id }
    }

    /// The room's id.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// Whose room this is.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Send text, encrypted.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_text(&self, text: impl Into<String>) -> Result<SendReceipt> {
        self.send("m.room.message", json!({"msgtype": "m.text", "body": text.into()}))
            .await
    }

    /// Send an event of any type, encrypted, to everybody who may read in the room. The receipt says who can.
    ///
    /// # Errors
    /// A refusal, with what to do in its text: the room is not encrypted or was replaced, its members are not known for
    /// certain, one of them is not allowed, somebody's devices are unknown, the key would reach nobody, the content is too
    /// large or malformed. Nothing was sent then. `send_pending`: the event is
    /// safe and is sent with the next call.
    ///
    /// # Cancel safety
    /// A future that is dropped early may leave the event in the outbox: it is sent with the next call.
    pub async fn send(&self, event_type: &str, content: Value) -> Result<SendReceipt> {
        self.send_with(event_type, content, SendOptions::default()).await
    }

    /// As [`send`](Self::send), and say how careful to be about devices that are unknown.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_to(&self, event_type: &str, content: Value, recipients: Recipients) -> Result<SendReceipt> {
        let options = SendOptions {
            recipients: Some(recipients),
            ..SendOptions::default()
        };
        self.send_with(event_type, content, options).await
    }

    /// As [`send`](Self::send), with what is to be different about this send.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_with(&self, event_type: &str, content: Value, options: SendOptions) -> Result<SendReceipt> {
        let outgoing = Outgoing {
            room_id: self.id.clone(),
            event_type: event_type.to_owned(),
            content,
            recipients: options.recipients,
            into_tombstoned: options.into_tombstoned,
        };
        Ok(self.client.orchestrator().send(outgoing).await?)
    }

    /// For whom messages of this room may be, as [`set_policy`](Self::set_policy) left it.
    ///
    /// # Errors
    /// Of the store.
    pub async fn policy(&self) -> Result<RoomPolicy> {
        Ok(self.client.orchestrator().room_policy(&self.id).await?)
    }

    /// Say for whom messages of this room may be, from the next send on and after every restart.
    ///
    /// # Errors
    /// Of the store.
    pub async fn set_policy(&self, policy: RoomPolicy) -> Result<()> {
        Ok(self.client.orchestrator().set_room_policy(&self.id, policy).await?)
    }

    /// Give the room a new key with the next send, as after a device was stolen. Returns whether there was a key.
    ///
    /// # Errors
    /// Of the store.
    pub async fn rotate_key(&self) -> Result<bool> {
        Ok(self.client.orchestrator().rotate_room_key(&self.id).await?)
    }

    /// Send an event as plaintext, on purpose. Refused in a room that is encrypted.
    ///
    /// # Errors
    /// Of the request; `room_is_encrypted`.
    pub async fn send_plaintext(&self, event_type: &str, content: Value) -> Result<OwnedEventId> {
        let outgoing = Outgoing {
            room_id: self.id.clone(),
            event_type: event_type.to_owned(),
            content,
            recipients: None,
            into_tombstoned: false,
        };
        Ok(self.client.orchestrator().send_plaintext(outgoing).await?)
    }

    /// Whether the room's events are encrypted.
    ///
    /// # Errors
    /// `not_in_room`; of the request.
    pub async fn is_encrypted(&self) -> Result<bool> {
        Ok(self.client.orchestrator().is_encrypted(&self.id).await?)
    }

    /// Mark the room as encrypted. This cannot be undone. A room that is encrypted stays as it is.
    ///
    /// # Errors
    /// Of the request.
    pub async fn mark_encrypted(&self) -> Result<()> {
        if self.is_encrypted().await? {
            return Ok(());
        }
        let content = RoomEncryptionEventContent::with_recommended_defaults();
        let request = send_state_event::v3::Request::new(self.id.clone(), &EmptyStateKey, &content)
            .map_err(mx_transport::RequestError::build)?;
        self.client.homeserver().send(request).await?;
        // Now it is known here too, before any sync.
        self.is_encrypted().await.map(drop)
    }

    /// Invite somebody.
    ///
    /// # Errors
    /// Of the request.
    pub async fn invite(&self, user: &UserId) -> Result<()> {
        let recipient =
            invite_user::v3::InvitationRecipient::UserId(invite_user::v3::InviteUserId::new(user.to_owned()));
        self.client
            .homeserver()
            .send(invite_user::v3::Request::new(self.id.clone(), recipient))
            .await?;
        Ok(())
    }

    /// Leave the room.
    ///
    /// # Errors
    /// Of the request.
    pub async fn leave(&self) -> Result<()> {
        self.client
            .homeserver()
            .send(leave_room::v3::Request::new(self.id.clone()))
            .await?;
        Ok(())
    }

    /// Everybody who joined or is invited.
    ///
    /// # Errors
    /// Of the request.
    pub async fn members(&self) -> Result<Vec<Member>> {
        #[derive(serde::Deserialize)]
        struct Raw {
            state_key: OwnedUserId,
            content: Value,
        }
        let answer = self
            .client
            .homeserver()
            .send(get_member_events::v3::Request::new(self.id.clone()))
            .await?;
        let members = answer
            .chunk
            .into_iter()
            .filter_map(|raw| raw.deserialize_as_unchecked::<Raw>().ok());
        let text = |content: &Value, field: &str| content.get(field).and_then(Value::as_str).map(str::to_owned);
        Ok(members
            .map(|raw| Member {
                user_id: raw.state_key,
                membership: text(&raw.content, "membership").unwrap_or_default(),
                display_name: text(&raw.content, "displayname"),
            })
            .filter(|member| matches!(member.membership.as_str(), "join" | "invite"))
            .collect())
    }

    /// The room's name. `None`: it has none. Anybody with permission can name it anything.
    ///
    /// # Errors
    /// Of the request.
    pub async fn name(&self) -> Result<Option<String>> {
        let request =
            get_state_event_for_key::v3::Request::new(self.id.clone(), StateEventType::RoomName, String::new());
        match self
            .client
            .homeserver()
            .exchange(request, mx_transport::Call::repeatable())
            .await
        {
            Ok(answer) => {
                let content: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
                Ok(content
                    .get("name")
                    .and_then(Value::as_str)
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned))
            }
            Err(error) if error.code() == "not_found" => Ok(None),
            Err(error) => Err(Error::from(error)),
        }
    }
}
