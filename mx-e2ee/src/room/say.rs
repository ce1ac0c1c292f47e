//! Saying something in a room: messages, edits, reactions, and taking back what was said.

use mx_olm_orchestrator::SendReceipt;
use ruma::{
    EventId, OwnedEventId, OwnedUserId, TransactionId,
    api::client::{redact::redact_event, room::get_room_event},
    events::AnyTimelineEvent,
};
use serde_json::Value;

use super::Room;
use crate::{Content, Result, SendOptions, content};

/// What anybody in a room sees of an event, encrypted or not.
///
/// ```no_run
/// # use mx_e2ee::{Room, ruma::EventId};
/// # async fn example(room: Room, event: &EventId) -> mx_e2ee::Result<()> {
/// use mx_e2ee::Content;
///
/// // Only the id is known, as from a link. The reply calls who wrote it, and stays in the thread.
/// let head = room.event_head(event).await?;
/// room.post(Content::text("done").reply_to_head(&head)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHead {
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Who sent it, as the homeserver says.
    pub sender: OwnedUserId,
    /// The first event of the thread that it is in.
    pub thread: Option<OwnedEventId>,
}

impl Room {
    /// Send a message, encrypted.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room, message: mx_e2ee::Message) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Content;
    ///
    /// room.post("text is enough").await?;
    /// room.post(Content::markdown("**on it**").reply_to(&message)).await?;
    /// room.post(Content::text("step 1 of 3").in_thread(&message.event_id)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn post(&self, content: impl Into<Content> + Send) -> Result<SendReceipt> {
        self.post_with(content, SendOptions::default()).await
    }

    /// As [`post`](Self::post), with what is to be different about this send.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Content, Recipients, SendOptions};
    ///
    /// let options = SendOptions { recipients: Some(Recipients::OnlyTrusted), ..SendOptions::default() };
    /// room.post_with(Content::markdown("the code is **4711**"), options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn post_with(&self, content: impl Into<Content> + Send, options: SendOptions) -> Result<SendReceipt> {
        let content = content.into().to_json()?;
        self.send_with("m.room.message", content, options).await
    }

    /// Say something else in place of a message of ours. Who has read it has read it.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// let sent = room.post("0 % done").await?;
    /// room.edit(&sent.event_id, "100 % done").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn edit(&self, event: &EventId, content: impl Into<Content> + Send) -> Result<SendReceipt> {
        self.edit_with(event, content, SendOptions::default()).await
    }

    /// As [`edit`](Self::edit), with what is to be different about this send.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Recipients, SendOptions};
    ///
    /// let sent = room.post("db1 is down").await?;
    /// // Whoever could be reached then is to read this too, though a server is away now.
    /// let options = SendOptions { recipients: Some(Recipients::BestEffort), ..SendOptions::default() };
    /// room.edit_with(&sent.event_id, "db1 is up again", options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn edit_with(
        &self,
        event: &EventId,
        content: impl Into<Content> + Send,
        options: SendOptions,
    ) -> Result<SendReceipt> {
        let content = content.into().to_replacement(event)?;
        self.send_with("m.room.message", content, options).await
    }

    /// React to an event, with an emoji as a rule. The reaction is encrypted too; to which event it belongs is not, as with
    /// every relation.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room, message: mx_e2ee::Message) -> mx_e2ee::Result<()> {
    /// room.react(&message.event_id, "👀").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn react(&self, event: &EventId, key: &str) -> Result<SendReceipt> {
        self.react_with(event, key, SendOptions::default()).await
    }

    /// As [`react`](Self::react), with what is to be different about this send.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room, message: mx_e2ee::Message) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Recipients, SendOptions};
    ///
    /// // A sign that it was seen is worth no refusal.
    /// let options = SendOptions { recipients: Some(Recipients::BestEffort), ..SendOptions::default() };
    /// room.react_with(&message.event_id, "👀", options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn react_with(&self, event: &EventId, key: &str, options: SendOptions) -> Result<SendReceipt> {
        self.send_with("m.reaction", content::reaction(event, key)?, options)
            .await
    }

    /// Redact an event: the homeserver forgets its content, and tells the others to. The reason is not encrypted.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room, message: mx_e2ee::Message) -> mx_e2ee::Result<()> {
    /// // The reason can be read by the homeserver: it does not repeat what was said.
    /// room.redact(&message.event_id, Some("off topic")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request: only moderators may redact what others said.
    ///
    /// # Cancel safety
    /// Whether the homeserver took it is not known then. A second redaction does no harm.
    pub async fn redact(&self, event: &EventId, reason: Option<&str>) -> Result<OwnedEventId> {
        let mut request = redact_event::v3::Request::new(self.id.clone(), event.to_owned(), TransactionId::new());
        request.reason = reason.map(str::to_owned);
        Ok(self.client.homeserver().send(request).await?.event_id)
    }

    /// Who sent an event, and in which thread it is: what a reply needs. Nothing is decrypted.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room, event: &mx_e2ee::ruma::EventId) -> mx_e2ee::Result<()> {
    /// match room.event_head(event).await {
    ///     Ok(head) => println!("{} wrote it, in the thread {:?}", head.sender, head.thread),
    ///     Err(error) if error.code() == "not_found" => println!("there is no such event that we may see"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request: `not_found` where there is no such event, or we may not see it.
    pub async fn event_head(&self, event: &EventId) -> Result<EventHead> {
        let request = get_room_event::v3::Request::new(self.id.clone(), event.to_owned());
        let raw = self.client.homeserver().send(request).await?.event;
        Ok(EventHead {
            event_id: event.to_owned(),
            sender: field(&raw, "sender")?,
            thread: content::thread_of(&field::<Value>(&raw, "content")?),
        })
    }
}

fn field<T: serde::de::DeserializeOwned>(raw: &ruma::serde::Raw<AnyTimelineEvent>, name: &str) -> Result<T> {
    let malformed = || mx_transport::RequestError::Decode {
        endpoint: "/_matrix/client/v3/rooms/{room_id}/event/{event_id}",
        source: format!("the event has no proper {name}").into(),
    };
    Ok(raw.get_field(name).ok().flatten().ok_or_else(malformed)?)
}
