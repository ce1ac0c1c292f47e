//! Sends one message and ends: for a job of cron, or what a monitor calls when something breaks.
//!
//! `cargo xtask example alert_sender` runs it beside somebody who reads. On a homeserver of yours, after `mx login`
//! (`MX_DIRECTORY` is the directory of that login), as a line of a crontab:
//!
//! ```sh
//! df -h / | MX_DIRECTORY=/var/lib/alerts alert_sender '#alerts:example.org'
//! ```
//!
//! It exits with 0 when the homeserver has the message, or the disk, from where it goes out with the next one; with 75 (try
//! again later, as `sysexits.h` has it) when nothing was kept and nobody but time has to do something; with 1 when somebody
//! has to.
#![expect(clippy::print_stdout, reason = "an example talks to people")]

use std::{env, io::Read, process::ExitCode};

use mx_e2ee::{Client, Content, Error};

#[tokio::main]
async fn main() -> ExitCode {
    match send().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("not sent: {error:#}");
            match error.downcast_ref::<Error>() {
                Some(error) if error.is_transient() => ExitCode::from(75),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn send() -> anyhow::Result<()> {
    let (Some(room), Some(directory)) = (env::args().nth(1), env::var_os("MX_DIRECTORY")) else {
        anyhow::bail!("usage: MX_DIRECTORY=… alert_sender ROOM < TEXT");
    };
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;

    let client = Client::builder().directory(directory).open().await?;
    let room = client.room(&client.resolve(&room).await?);
    let sent = room.post(Content::text(text.trim_end()).mention_room()).await;
    // A store that was closed can be opened by the next job at once. The outcome of the send comes first.
    let closed = client.close().await;
    match sent {
        Ok(receipt) => println!(
            "{} can be read by {} device(s)",
            receipt.event_id,
            receipt.readable_by()
        ),
        // Encrypted and on the disk: sending it again would say it twice.
        Err(error) if error.code() == "send_pending" => println!("kept, and sent with the next one: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(closed?)
}
