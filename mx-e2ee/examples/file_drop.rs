//! Keeps every file that one user sends to it, decrypted and whole, in a directory, and says so with a reaction.
//!
//! `cargo xtask example file_drop` runs it beside somebody who sends one. On a homeserver of yours, after `mx login`
//! (`MX_DIRECTORY` is the directory of that login):
//!
//! ```sh
//! MX_DIRECTORY=/var/lib/drop MX_OWNER=@you:example.org cargo run -p mx-e2ee --example file_drop -- ~/Dropped
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::{env, fs, path::Path, pin::pin};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use mx_e2ee::{Client, Error, Event, Invites, Message, ReceivedFile, ruma::OwnedUserId};

/// No file is larger, in bytes.
const MOST: u64 = 100 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let kept_in = env::args().nth(1).context("usage: file_drop DIRECTORY")?;
    fs::create_dir_all(&kept_in)?;
    let owner = env::var("MX_OWNER").context("set MX_OWNER to the user whose files are kept")?;
    let owner = OwnedUserId::try_from(owner).context("MX_OWNER is no user id (@name:server)")?;
    let directory = env::var("MX_DIRECTORY").context("set MX_DIRECTORY to the directory of a login")?;
    let bot = Client::builder()
        .directory(directory)
        .accept_invites(Invites::From([owner.clone()].into()))
        .open()
        .await?;
    println!("{} keeps files of {owner}", bot.user_id());
    serve(&bot, &owner, Path::new(&kept_in)).await?;
    bot.close().await?;
    println!("stopped");
    Ok(())
}

async fn serve(bot: &Client, owner: &OwnedUserId, kept_in: &Path) -> Result<()> {
    let (mut events, mut stop) = (pin!(bot.events()), pin!(tokio::signal::ctrl_c()));
    loop {
        tokio::select! {
            stopped = &mut stop => return Ok(stopped?),
            Some(event) = events.next() => match event {
                Ok(Event::Message(message)) if message.sender == *owner => {
                    if let Err(error) = keep(bot, &message, kept_in).await {
                        eprintln!("{} was not kept: {error} [{}]", message.event_id, error.code());
                    }
                }
                Ok(_) => {}
                Err(error) if error.is_transient() => eprintln!("{}: {error}", error.code()),
                Err(error) => return Err(error.into()),
            },
        }
    }
}

async fn keep(bot: &Client, message: &Message, kept_in: &Path) -> Result<(), Error> {
    // `None`: no file. One that came without encryption is an error.
    let Some(file) = ReceivedFile::of(message)? else {
        return Ok(());
    };
    // Under a name that leads nowhere else, and only when its hash was right and all of it is on the disk.
    let path = bot.files().max_bytes(MOST).download_into(&file, kept_in).await?;
    println!("kept {}", path.display());
    bot.room(&message.room_id).react(&message.event_id, "✅").await?;
    Ok(())
}
