//! What a message says: text or Markdown, a notice, a reply, in a thread, for whom.

use std::fmt;

use mx_olm_orchestrator::Message;
use ruma::{
    EventId, OwnedEventId, OwnedUserId, UserId,
    events::{
        Mentions,
        reaction::ReactionEventContent,
        relation::{Annotation, InReplyTo, Reply, Thread},
        room::message::{FormattedBody, Relation, ReplacementMetadata, RoomMessageEventContent},
    },
};
use serde_json::Value;

use crate::{Error, EventHead, Result};

/// The content of a message (`m.room.message`), before it is sent with [`Room::post`](crate::Room::post).
///
/// Whom a message is for is said with it (`m.mentions`): nobody, where nobody is named. Names in the text call nobody.
///
/// ```
/// use mx_e2ee::{Content, ruma::user_id};
///
/// let content = Content::markdown("**Disk full** on `db1`").notice().mention(user_id!("@oncall:example.org"));
/// # drop(content);
/// ```
#[derive(Clone)]
#[must_use = "a content is nothing before it is sent"]
pub struct Content {
    body: String,
    html: Option<String>,
    kind: Kind,
    reply_to: Option<OwnedEventId>,
    thread: Option<OwnedEventId>,
    mentions: Mentions,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Notice,
    Emote,
}

impl Content {
    /// Text as it is.
    ///
    /// ```
    /// use mx_e2ee::Content;
    ///
    /// // Nothing in it is Markdown or HTML: what a machine wrote is safe here.
    /// let json = Content::text("load: **3** <b>").to_json()?;
    /// assert_eq!(json["body"], "load: **3** <b>");
    /// assert_eq!(json.get("formatted_body"), None);
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            body: body.into(),
            html: None,
            kind: Kind::Text,
            reply_to: None,
            thread: None,
            mentions: Mentions::new(),
        }
    }

    /// Markdown (CommonMark). Clients that show no HTML show it as it was written; text without any Markdown is sent as
    /// plain text. HTML in it is sent as it stands: it is for those who read it to make it harmless.
    pub fn markdown(markdown: impl Into<String>) -> Self {
        let body = markdown.into();
        let html = FormattedBody::markdown(&body).map(|formatted| formatted.body);
        Self {
            html,
            ..Self::text(body)
        }
    }

    /// HTML of the subset that Matrix allows, and the text for clients that show none.
    ///
    /// ```
    /// use mx_e2ee::Content;
    ///
    /// let content = Content::html("3 of 3 are up", "<b>3 of 3</b> are up").notice();
    /// # assert!(content.to_json().is_ok());
    /// ```
    pub fn html(body: impl Into<String>, html: impl Into<String>) -> Self {
        Self {
            html: Some(html.into()),
            ..Self::text(body)
        }
    }

    /// As a notice: bots do not answer to it, and clients show it as less important.
    pub const fn notice(mut self) -> Self {
        self.kind = Kind::Notice;
        self
    }

    /// As an emote: what the sender does.
    ///
    /// ```
    /// use mx_e2ee::Content;
    ///
    /// // Clients show it as "* mybot restarts db1".
    /// assert_eq!(Content::text("restarts db1").emote().to_json()?["msgtype"], "m.emote");
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    pub const fn emote(mut self) -> Self {
        self.kind = Kind::Emote;
        self
    }

    /// As a reply, for its sender, in the thread that it is in.
    ///
    /// ```
    /// # use mx_e2ee::Message;
    /// use mx_e2ee::Content;
    ///
    /// fn answer(question: &Message) -> Content {
    ///     Content::markdown("see the *manual*").reply_to(question)
    /// }
    /// # let _ = answer;
    /// ```
    pub fn reply_to(mut self, message: &Message) -> Self {
        if let Some(root) = thread_of(&message.content) {
            self.thread = Some(root);
        }
        self.mention(&message.sender).reply_to_event(&message.event_id)
    }

    /// As a reply to an event of which no more is known. Nobody is called by it.
    ///
    /// ```
    /// use mx_e2ee::{Content, ruma::event_id};
    ///
    /// let json = Content::text("see above").reply_to_event(event_id!("$asked")).to_json()?;
    /// assert_eq!(json["m.relates_to"]["m.in_reply_to"]["event_id"], "$asked");
    /// assert_eq!(json["m.mentions"], serde_json::json!({}), "nobody is called");
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    pub fn reply_to_event(mut self, event: &EventId) -> Self {
        self.reply_to = Some(event.to_owned());
        self
    }

    /// As a reply to an event of which only its head is known, as with [`reply_to`](Self::reply_to).
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room, asked: &mx_e2ee::ruma::EventId) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Content;
    ///
    /// // A job that is done long after it was asked for, of which only the id was kept.
    /// let head = room.event_head(asked).await?;
    /// room.post(Content::text("the backup is done").reply_to_head(&head)).await?;
    /// # Ok(()) }
    /// ```
    pub fn reply_to_head(mut self, event: &EventHead) -> Self {
        if event.thread.is_some() {
            self.thread.clone_from(&event.thread);
        }
        self.mention(&event.sender).reply_to_event(&event.event_id)
    }

    /// In the thread that began with this event.
    ///
    /// ```
    /// use mx_e2ee::{Content, ruma::event_id};
    ///
    /// let json = Content::text("step 1 of 3").in_thread(event_id!("$began")).to_json()?;
    /// assert_eq!(json["m.relates_to"]["rel_type"], "m.thread");
    /// assert_eq!(json["m.relates_to"]["is_falling_back"], true, "a reply for clients without threads");
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    pub fn in_thread(mut self, root: &EventId) -> Self {
        self.thread = Some(root.to_owned());
        self
    }

    /// For this user: a client tells them.
    pub fn mention(mut self, user: &UserId) -> Self {
        self.mentions.user_ids.insert(user.to_owned());
        self
    }

    /// For everybody in the room, where the sender may call them.
    ///
    /// ```
    /// use mx_e2ee::Content;
    ///
    /// let json = Content::text("db1 is down").mention_room().to_json()?;
    /// assert_eq!(json["m.mentions"], serde_json::json!({"room": true}));
    /// // The words alone call nobody.
    /// assert_eq!(Content::text("@room db1 is down").to_json()?["m.mentions"], serde_json::json!({}));
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    pub const fn mention_room(mut self) -> Self {
        self.mentions.room = true;
        self
    }

    /// Whom it is for.
    ///
    /// ```
    /// use mx_e2ee::{Content, ruma::user_id};
    ///
    /// let content = Content::text("look at db1").mention(user_id!("@oncall:example.org"));
    /// assert!(content.mentions().eq(["@oncall:example.org"]));
    /// ```
    pub fn mentions(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.mentions.user_ids.iter()
    }

    /// The content of the event.
    ///
    /// ```
    /// use mx_e2ee::Content;
    ///
    /// let json = Content::markdown("**3** of 3 are up").notice().to_json()?;
    /// assert_eq!(json["msgtype"], "m.notice");
    /// assert_eq!(json["body"], "**3** of 3 are up");
    /// assert_eq!(json["formatted_body"], "<strong>3</strong> of 3 are up");
    /// assert_eq!(Content::text("").to_json().unwrap_err().code(), "configuration");
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Configuration`] when there is nothing to say.
    pub fn to_json(&self) -> Result<Value> {
        let mut content = self.without_relation()?;
        content.relates_to = match (&self.thread, &self.reply_to) {
            (Some(root), Some(event)) => Some(Relation::Thread(Thread::reply(root.clone(), event.clone()))),
            (Some(root), None) => Some(Relation::Thread(Thread::plain(root.clone(), root.clone()))),
            (None, Some(event)) => Some(Relation::Reply(Reply::new(InReplyTo::new(event.clone())))),
            (None, None) => None,
        };
        as_json(&content)
    }

    /// The content of an event that replaces `event`: its text, its kind, and whom it is for. Where it stands stays.
    pub(crate) fn to_replacement(&self, event: &EventId) -> Result<Value> {
        let content = self.without_relation()?;
        as_json(&content.make_replacement(ReplacementMetadata::new(event.to_owned(), None)))
    }

    fn without_relation(&self) -> Result<RoomMessageEventContent> {
        if self.body.is_empty() {
            return Err(Error::Configuration {
                what: "there is no text to send".to_owned(),
            });
        }
        let body = self.body.clone();
        let content = match (&self.html, self.kind) {
            (None, Kind::Text) => RoomMessageEventContent::text_plain(body),
            (None, Kind::Notice) => RoomMessageEventContent::notice_plain(body),
            (None, Kind::Emote) => RoomMessageEventContent::emote_plain(body),
            (Some(html), Kind::Text) => RoomMessageEventContent::text_html(body, html),
            (Some(html), Kind::Notice) => RoomMessageEventContent::notice_html(body, html),
            (Some(html), Kind::Emote) => RoomMessageEventContent::emote_html(body, html),
        };
        Ok(content.add_mentions(self.mentions.clone()))
    }
}

/// What is said stays out of logs.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

/// Text alone says what plain text says.
impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// The content of a reaction to `event`.
pub(crate) fn reaction(event: &EventId, key: &str) -> Result<Value> {
    as_json(&ReactionEventContent::new(Annotation::new(
        event.to_owned(),
        key.to_owned(),
    )))
}

/// The first event of the thread that an event with this content is in.
pub(crate) fn thread_of(content: &Value) -> Option<OwnedEventId> {
    let relation = content.get("m.relates_to")?;
    (relation.get("rel_type")?.as_str()? == "m.thread")
        .then(|| relation.get("event_id")?.as_str()?.try_into().ok())
        .flatten()
}

fn as_json(content: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(content).map_err(|error| Error::Configuration {
        what: format!("this content is not JSON: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use ruma::{event_id, room_id, user_id};
    use serde_json::json;

    use super::*;

    fn message(content: Value) -> Message {
        serde_json::from_value(json!({
            "room_id": room_id!("!r:x"), "event_id": event_id!("$asked"), "sender": user_id!("@bob:x"),
            "origin_server_ts": 1, "event_type": "m.room.message", "content": content, "encryption": null,
        }))
        .unwrap()
    }

    #[test]
    fn text_is_text_and_calls_nobody() {
        assert_eq!(
            Content::from("a *b*").to_json().unwrap(),
            json!({"msgtype": "m.text", "body": "a *b*", "m.mentions": {}})
        );
        assert!(Content::text("").to_json().is_err());
        assert!(!format!("{:?}", Content::text("secret")).contains("secret"));
    }

    #[test]
    fn markdown_becomes_html_beside_what_was_written() {
        let json = Content::markdown("a **b**").notice().to_json().unwrap();
        assert_eq!(json["msgtype"], "m.notice");
        assert_eq!(json["body"], "a **b**");
        assert_eq!(json["format"], "org.matrix.custom.html");
        assert_eq!(json["formatted_body"], "a <strong>b</strong>");
        assert_eq!(Content::markdown("plain").to_json().unwrap().get("format"), None);
        assert_eq!(
            Content::html("x", "<i>x</i>").emote().to_json().unwrap()["msgtype"],
            "m.emote"
        );
    }

    #[test]
    fn a_reply_is_for_the_sender_and_stays_in_the_thread() {
        let json = Content::text("yes").reply_to(&message(json!({}))).to_json().unwrap();
        assert_eq!(json["m.relates_to"], json!({"m.in_reply_to": {"event_id": "$asked"}}));
        assert_eq!(json["m.mentions"], json!({"user_ids": ["@bob:x"]}));

        let threaded = message(json!({"m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}}));
        let json = Content::text("yes").reply_to(&threaded).to_json().unwrap();
        assert_eq!(json["m.relates_to"]["rel_type"], "m.thread");
        assert_eq!(json["m.relates_to"]["event_id"], "$root");
        assert_eq!(json["m.relates_to"]["m.in_reply_to"]["event_id"], "$asked");
        assert_eq!(json["m.relates_to"].get("is_falling_back"), None);
    }

    #[test]
    fn a_message_in_a_thread_is_a_reply_for_clients_without_threads() {
        let json = Content::text("more")
            .in_thread(event_id!("$root"))
            .mention_room()
            .to_json()
            .unwrap();
        assert_eq!(json["m.relates_to"]["is_falling_back"], true);
        assert_eq!(json["m.mentions"], json!({"room": true}));
    }

    #[test]
    fn an_edit_carries_the_new_text_inside_and_a_fallback_outside() {
        let json = Content::markdown("*b*").to_replacement(event_id!("$old")).unwrap();
        assert_eq!(
            json["m.relates_to"],
            json!({"rel_type": "m.replace", "event_id": "$old"})
        );
        assert_eq!(json["m.new_content"]["body"], "*b*");
        assert_eq!(json["m.new_content"]["formatted_body"], "<em>b</em>");
        assert_eq!(json["body"], "* *b*");
    }

    #[test]
    fn a_reaction_names_its_event_and_its_key() {
        assert_eq!(
            reaction(event_id!("$e"), "👍").unwrap(),
            json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$e", "key": "👍"}})
        );
    }
}
