//! The files of events that arrive.

use std::time::Duration;

use anyhow::Result;
use mx_e2ee::{Client, Error, Event};

use crate::{
    cli::Listen,
    commands::download,
    output::{Output, clean},
};

/// Between attempts to fetch a file, each of which is several requests already.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];

/// Keep the file of an event before it is acknowledged: one that was not kept comes again. What the sender or somebody's
/// server is to blame for is told and passed over, after a few attempts where it may pass: nobody else's events wait for it.
pub(super) async fn save(client: &Client, event: &Event, listen: &Listen, output: Output) -> Result<()> {
    let (Some(directory), Event::Message(message)) = (&listen.save, event) else {
        return Ok(());
    };
    let mut pauses = PAUSES.into_iter();
    loop {
        let Err(error) = download::keep(&client.files(), message, directory, output).await else {
            return Ok(());
        };
        let Some(cause) = error.downcast_ref::<Error>() else {
            return Err(error);
        };
        let told = format!("mx: no file of {}: {cause}", message.event_id);
        match pauses.next() {
            Some(pause) if cause.is_transient() => {
                output.note(&clean(&format!("{told}; trying again [{}]", cause.code())));
                tokio::time::sleep(pause).await;
            }
            _ if is_ours(cause) => return Err(error),
            _ => {
                output.note(&clean(&format!("{told}; passed over [{}]", cause.code())));
                return Ok(());
            }
        }
    }
}

/// It is our disk, our login or our line to the homeserver: no other file would do better.
fn is_ours(error: &Error) -> bool {
    let code = error.code();
    code.starts_with("store_")
        || matches!(
            code,
            "file_not_writable"
                | "local_body"
                | "unreachable"
                | "tls"
                | "logged_out"
                | "soft_logged_out"
                | "not_logged_in"
        )
}
