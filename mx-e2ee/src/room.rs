//! A room: sending, and who is in it.

pub(crate) mod people;
pub(crate) mod say;

use mx_olm_orchestrator::{Outgoing, Readership, Recipients, RoomPolicy, SendReceipt};
use mx_transport::RequestError;
use ruma::{
    OwnedEventId, OwnedRoomId, RoomId,
    api::client::state::{get_state_event_for_key, send_state_event},
    events::{EmptyStateKey, StateEventType, room::encryption::RoomEncryptionEventContent},
};
use serde_json::{Value, json};

use crate::{Client, Error, Result};

/// A room of a [`Client`].
///
/// ```no_run
/// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
/// use mx_e2ee::Content;
///
/// let sent = room.post(Content::markdown("**Disk full** on `db1`").mention_room()).await?;
/// println!("{} devices can read {}", sent.readable_by(), sent.event_id);
/// room.edit(&sent.event_id, "db1 is fine again").await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Room {
    client: Client,
    id: OwnedRoomId,
}

/// What is different about one send.
///
/// ```no_run
/// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
/// use mx_e2ee::{Recipients, SendOptions};
///
/// let options = SendOptions { recipients: Some(Recipients::BestEffort), ..SendOptions::default() };
/// let sent = room.post_with("to whoever can be reached", options).await?;
/// println!("nothing is known of the devices of {:?}", sent.users_unknown);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// How careful the send is. `None`: as the room's policy says, else the client's.
    pub recipients: Option<Recipients>,
    /// Send although the room was replaced by another one.
    pub into_tombstoned: bool,
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
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room, message: mx_e2ee::Message) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::api::client::receipt::create_receipt::v3::{ReceiptType, Request};
    ///
    /// // Any request of the Matrix specification can be made, such as to say that a message was read.
    /// let read = Request::new(room.id().to_owned(), ReceiptType::Read, message.event_id);
    /// room.client().homeserver().send(read).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Send text, encrypted.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// let sent = room.send_text("db1 is down").await?;
    /// if sent.readable_by() == 0 {
    ///     println!("it was sent, and nobody can read it");
    /// }
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// let reading = serde_json::json!({"sensor": "cellar", "celsius": "14.2"});
    /// let sent = room.send("org.example.reading", reading).await?;
    /// for device in sent.devices.iter() {
    ///     println!("{} {}: {}", device.user_id, device.device_id, device.outcome.describe());
    /// }
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Recipients;
    ///
    /// let alert = serde_json::json!({"msgtype": "m.text", "body": "db1 is down"});
    /// let sent = match room.send_to("m.room.message", alert.clone(), Recipients::Strict).await {
    ///     // A server does not answer for its users' devices. An alert that most can read is better than none.
    ///     Err(error) if error.code() == "recipients_unknown" => {
    ///         room.send_to("m.room.message", alert, Recipients::BestEffort).await?
    ///     }
    ///     sent => sent?,
    /// };
    /// println!("unknown: {:?}", sent.users_unknown);
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::SendOptions;
    ///
    /// // The room was replaced by another one: say so to whoever is still here.
    /// let options = SendOptions { into_tombstoned: true, ..SendOptions::default() };
    /// let moved = serde_json::json!({"msgtype": "m.notice", "body": "this room has moved"});
    /// room.send_with("m.room.message", moved, options).await?;
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::owned_user_id;
    ///
    /// // One more user may read, and the rest of the policy stays.
    /// let mut policy = room.policy().await?;
    /// if let Some(allowed) = &mut policy.allowed {
    ///     allowed.insert(owned_user_id!("@new:example.org"));
    ///     room.set_policy(policy).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn policy(&self) -> Result<RoomPolicy> {
        Ok(self.client.orchestrator().room_policy(&self.id).await?)
    }

    /// Say for whom messages of this room may be, from the next send on and after every restart.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Recipients, RoomPolicy};
    ///
    /// // Only trusted devices are given the key. Everybody in the room may still be a member.
    /// room.set_policy(RoomPolicy { recipients: Some(Recipients::OnlyTrusted), allowed: None }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn set_policy(&self, policy: RoomPolicy) -> Result<()> {
        Ok(self.client.orchestrator().set_room_policy(&self.id, policy).await?)
    }

    /// Give the room a new key with the next send, as after a device was stolen. Returns whether there was a key.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // After a break-in: no room goes on with a key that somebody may have.
    /// for room in client.rooms().await? {
    ///     if room.rotate_key().await? {
    ///         println!("{} gets a new key with the next message", room.id());
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn rotate_key(&self) -> Result<bool> {
        Ok(self.client.orchestrator().rotate_room_key(&self.id).await?)
    }

    /// Who can read the next message, and why not: what a send would refuse, each device with how far it is trusted, and
    /// how old the room's key is. Nobody is given a key. As
    /// [`Orchestrator::readership`](mx_olm_orchestrator::Orchestrator::readership).
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// let readership = room.readership().await?;
    /// for refusal in &readership.refused {
    ///     println!("a send would be refused [{}]: {}", refusal.code, refusal.advice);
    /// }
    /// for reader in readership.users.iter().filter(|reader| !reader.can_read()) {
    ///     println!("{} cannot read", reader.user_id);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `not_in_room`, `members_incomplete`; of the request; of the store.
    pub async fn readership(&self) -> Result<Readership> {
        Ok(self.client.orchestrator().readership(&self.id).await?)
    }

    /// Send an event as plaintext, on purpose. Refused in a room that is encrypted.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// if !room.is_encrypted().await? {
    ///     let notice = serde_json::json!({"msgtype": "m.notice", "body": "anybody can read this"});
    ///     room.send_plaintext("m.room.message", notice).await?;
    /// }
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// // A room that was encrypted once stays so here, whatever the homeserver shows later.
    /// if !room.is_encrypted().await? {
    ///     println!("what is said in {} is read by every server in it", room.id());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `not_in_room`; of the request.
    pub async fn is_encrypted(&self) -> Result<bool> {
        Ok(self.client.orchestrator().is_encrypted(&self.id).await?)
    }

    /// Mark the room as encrypted. This cannot be undone. A room that is encrypted stays as it is.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// // It needs the right to change the room, which a moderator may not have.
    /// match room.mark_encrypted().await {
    ///     Err(error) if error.code() == "forbidden" => println!("ask an administrator of {}", room.id()),
    ///     marked => marked?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn mark_encrypted(&self) -> Result<()> {
        if self.is_encrypted().await? {
            return Ok(());
        }
        let content = RoomEncryptionEventContent::with_recommended_defaults();
        let request = send_state_event::v3::Request::new(self.id.clone(), &EmptyStateKey, &content)
            .map_err(RequestError::build)?;
        self.client.homeserver().send(request).await?;
        // Now it is known here too, before any sync.
        self.is_encrypted().await.map(drop)
    }

    /// The room's name. `None`: it has none. Anybody with permission can name it anything.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// // For people to read. What a program does hangs on the id, which nobody can take.
    /// println!("{}", room.name().await?.unwrap_or_else(|| room.id().to_string()));
    /// # Ok(()) }
    /// ```
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
