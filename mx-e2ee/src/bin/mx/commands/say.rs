//! `mx react`, `mx redact`, and where a message of `mx send` belongs.

use std::time::Duration;

use anyhow::Result;
use mx_e2ee::{
    Content, Error, Room, SendOptions, SendReceipt,
    ruma::{OwnedEventId, OwnedUserId},
};
use serde_json::json;

use super::{
    room::{by_name, user_id},
    send::tell,
};
use crate::{
    cli::{Cli, React, Redact, Send},
    output::{Output, clean},
    profile,
};

/// Where a message belongs, and for whom it is.
pub(super) struct Place {
    reply_to: Option<OwnedEventId>,
    thread: Option<OwnedEventId>,
    edit: Option<OwnedEventId>,
    mentions: Vec<OwnedUserId>,
}

impl Place {
    /// As it was typed. Ids are looked at before anything is opened or sent.
    pub(super) fn of(send: &Send) -> Result<Self> {
        let id = |given: &Option<String>| given.as_deref().map(event_id).transpose();
        let mentions = send.mention.iter().map(|user| user_id(user));
        Ok(Self {
            reply_to: id(&send.reply_to)?,
            thread: id(&send.thread)?,
            edit: id(&send.edit)?,
            mentions: mentions.collect::<Result<_, _>>()?,
        })
    }
}

/// Send a message to where it belongs.
pub(super) async fn say(
    room: &Room,
    mut content: Content,
    place: Place,
    options: SendOptions,
) -> Result<SendReceipt, Error> {
    for user in &place.mentions {
        content = content.mention(user);
    }
    if let Some(event) = &place.edit {
        return room.edit_with(event, content, options).await;
    }
    if let Some(event) = &place.reply_to {
        content = content.reply_to_head(&room.event_head(event).await?);
    }
    if let Some(root) = &place.thread {
        content = content.in_thread(root);
    }
    room.post_with(content, options).await
}

pub(super) async fn react(cli: &Cli, react: &React, output: Output) -> Result<()> {
    let event = event_id(&react.event)?;
    let client = profile::open_within(cli, Duration::from_secs(react.wait), output).await?;
    let room = by_name(&client, &react.room).await?;
    let options = SendOptions {
        recipients: react.care.recipients(),
        ..SendOptions::default()
    };
    let receipt = room.react_with(&event, &react.key, options).await?;
    client.close().await?;
    tell(&receipt, output);
    output.show(&json!(receipt), &clean(receipt.event_id.as_str()))?;
    Ok(())
}

pub(super) async fn redact(cli: &Cli, redact: &Redact, output: Output) -> Result<()> {
    let event = event_id(&redact.event)?;
    let client = profile::open_within(cli, Duration::from_secs(redact.wait), output).await?;
    let room = by_name(&client, &redact.room).await?;
    let redaction = room.redact(&event, redact.reason.as_deref()).await?;
    client.close().await?;
    output.show(&json!({"event_id": redaction}), &clean(redaction.as_str()))?;
    Ok(())
}

fn event_id(given: &str) -> Result<OwnedEventId, Error> {
    OwnedEventId::try_from(given).map_err(|_| Error::InvalidId {
        given: given.to_owned(),
        wanted: "an event id ($…)",
    })
}
