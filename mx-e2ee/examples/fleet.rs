//! Many bots in one process, with one token: users of an application service, each a device with keys of its own.
//!
//! `cargo xtask example fleet` runs three of them beside somebody who asks who is there. On a homeserver of yours, with
//! the `as_token` of a registration in a file:
//!
//! ```sh
//! export MX_HOMESERVER=https://matrix.example.org MX_AS_TOKEN_FILE=as_token MX_DIRECTORY=/var/lib/fleet
//! MX_OWNER=@you:example.org cargo run -p mx-e2ee --example fleet -- @bot.one:example.org @bot.two:example.org
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::{env, fs, pin::pin, sync::Arc};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use mx_e2ee::{
    Client, Content, Event, Fleet, Invites,
    ruma::UserId,
    transport::{RateLimit, ReqwestTransport, Retry},
};
use tokio::{sync::watch, task::JoinSet};

#[tokio::main]
async fn main() -> Result<()> {
    let token = fs::read_to_string(variable("MX_AS_TOKEN_FILE")?).context("cannot read MX_AS_TOKEN_FILE")?;
    let invites = Invites::of(&[variable("MX_OWNER")?])?;
    // One client for all: they share its connections. Each bot is limited and tried again by itself.
    let transport = Arc::new(Retry::new(RateLimit::new(ReqwestTransport::builder().build()?)));
    let fleet = Fleet::new(
        variable("MX_HOMESERVER")?,
        token.trim_end(),
        variable("MX_DIRECTORY")?,
        transport,
    );

    let (stop, stopped) = watch::channel(());
    let mut bots = JoinSet::new();
    for user in env::args().skip(1) {
        let user = UserId::parse(user)?;
        let bot = fleet
            .bot_with(&user, |builder| builder.accept_invites(invites.clone()))
            .await?;
        println!("{user} is here as device {}", bot.device_id());
        bots.spawn(run(bot, stopped.clone()));
    }
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        // A bot ends by itself only when it cannot go on; then all do, and the service manager starts them again.
        Some(ended) = bots.join_next() => ended??,
    }
    stop.send_replace(());
    while let Some(ended) = bots.join_next().await {
        ended??;
    }
    println!("stopped");
    Ok(())
}

async fn run(bot: Client, mut stopped: watch::Receiver<()>) -> Result<()> {
    serve(&bot, &mut stopped).await?;
    Ok(bot.close().await?)
}

async fn serve(bot: &Client, stopped: &mut watch::Receiver<()>) -> Result<()> {
    let mut events = pin!(bot.events());
    loop {
        tokio::select! {
            _ = stopped.changed() => return Ok(()),
            Some(event) = events.next() => match event {
                Ok(Event::Message(message)) if message.body() == Some("who is there?") => {
                    let answer = Content::text(format!("{} is", bot.user_id())).notice();
                    if let Err(error) = bot.room(&message.room_id).post(answer).await {
                        eprintln!("{}: {error} [{}]", bot.user_id(), error.code());
                    }
                }
                Ok(_) => {}
                Err(error) if error.is_transient() => eprintln!("{}: {error} [{}]", bot.user_id(), error.code()),
                Err(error) => return Err(error.into()),
            },
        }
    }
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("set the environment variable {name}"))
}
