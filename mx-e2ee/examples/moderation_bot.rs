//! Takes back messages that hold a forbidden word, and says so in the room. It needs the power to redact there.
//!
//! `cargo xtask example moderation_bot` runs it beside somebody who swears. On a homeserver of yours, after `mx login`
//! (`MX_DIRECTORY` is the directory of that login):
//!
//! ```sh
//! MX_DIRECTORY=/var/lib/moderator MX_OWNER=@you:example.org cargo run -p mx-e2ee --example moderation_bot -- darn heck
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::{env, pin::pin};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use mx_e2ee::{Client, Content, Event, Invites, Message};

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).map(|word| word.to_lowercase()).collect();
    ensure!(!words.is_empty(), "usage: moderation_bot WORD…");
    let owner = env::var("MX_OWNER").context("set MX_OWNER to the user who may invite the bot")?;
    let directory = env::var("MX_DIRECTORY").context("set MX_DIRECTORY to the directory of a login")?;
    let bot = Client::builder()
        .directory(directory)
        .accept_invites(Invites::of(&[owner])?)
        .open()
        .await?;
    println!("{} moderates", bot.user_id());
    moderate(&bot, &words).await?;
    bot.close().await?;
    println!("stopped");
    Ok(())
}

async fn moderate(bot: &Client, words: &[String]) -> Result<()> {
    let (mut events, mut stop) = (pin!(bot.events()), pin!(tokio::signal::ctrl_c()));
    loop {
        tokio::select! {
            stopped = &mut stop => return Ok(stopped?),
            Some(event) = events.next() => match event {
                Ok(Event::Message(message)) => judge(bot, words, &message).await,
                // It could not be read, so it could not be judged: somebody should know.
                Ok(Event::Undecryptable(event)) => println!("cannot read {}: {}", event.event_id, event.advice),
                Ok(_) => {}
                Err(error) if error.is_transient() => eprintln!("{}: {error}", error.code()),
                Err(error) => return Err(error.into()),
            },
        }
    }
}

async fn judge(bot: &Client, words: &[String], message: &Message) {
    if message.sender == bot.user_id() || !is_forbidden(&text(message), words) {
        return;
    }
    let room = bot.room(&message.room_id);
    // The reason is not encrypted: it does not repeat the word.
    match room
        .redact(&message.event_id, Some("a word that is not welcome here"))
        .await
    {
        Ok(_) => println!("took back {}", message.event_id),
        Err(error) => return eprintln!("cannot take back {}: {error} [{}]", message.event_id, error.code()),
    }
    let warning = Content::text("Please mind your words.")
        .notice()
        .mention(&message.sender);
    if let Err(error) = room.post(warning).await {
        eprintln!("cannot warn {}: {error} [{}]", message.sender, error.code());
    }
}

/// All that a message shows: its text, what it is to be after an edit, and its HTML.
fn text(message: &Message) -> String {
    let places = [
        "/body",
        "/formatted_body",
        "/m.new_content/body",
        "/m.new_content/formatted_body",
    ];
    let found = places
        .iter()
        .filter_map(|place| message.content.pointer(place)?.as_str());
    found.collect::<Vec<_>>().join("\n").to_lowercase()
}

/// Whole words: nobody is scolded for Scunthorpe.
fn is_forbidden(text: &str, words: &[String]) -> bool {
    text.split(|c: char| !c.is_alphanumeric())
        .any(|word| words.iter().any(|forbidden| forbidden == word))
}
