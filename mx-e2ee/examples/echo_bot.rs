//! A bot that says again what it is told. The first start logs in; every other one goes on as the same device.
//!
//! `cargo xtask example echo_bot` runs it beside somebody who talks to it. On a homeserver of yours:
//!
//! ```sh
//! export MX_HOMESERVER=https://matrix.example.org MX_USER=echo MX_PASSWORD_FILE=password
//! export MX_DIRECTORY=echo-bot MX_OWNER=@you:example.org
//! cargo run -p mx-e2ee --example echo_bot
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::{env, fs, pin::pin};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use mx_e2ee::{Client, Content, Event, Invites, Message};

#[tokio::main]
async fn main() -> Result<()> {
    let bot = start().await?;
    println!("{} is here as device {}", bot.user_id(), bot.device_id());
    serve(&bot).await?;
    // What was not handled by now is told again at the next start.
    bot.close().await?;
    println!("stopped");
    Ok(())
}

async fn start() -> Result<Client> {
    // Only the owner may bring it into rooms.
    let invites = Invites::of(&[variable("MX_OWNER")?])?;
    let (user, password) = (variable("MX_USER")?, variable("MX_PASSWORD_FILE")?);
    let bot = Client::builder()
        .homeserver(variable("MX_HOMESERVER")?)
        .directory(variable("MX_DIRECTORY")?)
        .accept_invites(invites)
        .open_or_login(&user, || fs::read_to_string(password))
        .await?;
    Ok(bot)
}

async fn serve(bot: &Client) -> Result<()> {
    let (mut events, mut stop) = (pin!(bot.events()), pin!(tokio::signal::ctrl_c()));
    loop {
        tokio::select! {
            stopped = &mut stop => return Ok(stopped?),
            Some(event) = events.next() => match event {
                // An event is acknowledged when the next one is asked for: what follows is never cut off in between.
                Ok(Event::Message(message)) => answer(bot, &message).await?,
                Ok(_) => {}
                // The stream pauses and goes on by itself.
                Err(error) if error.is_transient() => eprintln!("{}: {error}", error.code()),
                Err(error) => return Err(error.into()),
            },
        }
    }
}

async fn answer(bot: &Client, message: &Message) -> Result<()> {
    // Text only, and no notices: two bots that answer notices never stop.
    if message.content["msgtype"] != "m.text" || message.encryption.is_none() {
        return Ok(());
    }
    let Some(body) = message.body() else {
        return Ok(());
    };
    let reply = Content::text(body).notice().reply_to(message);
    match bot.room(&message.room_id).post(reply).await {
        Ok(receipt) => println!(
            "answered {}, readable by {} device(s)",
            message.sender,
            receipt.readable_by()
        ),
        // It says what to do, and whoever asked can ask again: the others are answered all the same.
        Err(error) => eprintln!("no answer to {}: {error} [{}]", message.event_id, error.code()),
    }
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("set the environment variable {name}"))
}
