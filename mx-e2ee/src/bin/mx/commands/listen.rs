//! `mx listen`.

mod trouble;

use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use mx_e2ee::{Accept, Client, Error, Event, Invites, LostBecause, Message, RejectedReason, VerificationOutcome};
use serde_json::json;

use self::trouble::Trouble;
use super::download;
use crate::{
    cli::{Cli, Listen},
    output::{Output, clean},
    profile,
    signals::asked_to_end,
};

/// Between attempts to fetch a file, each of which is several requests already.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];

/// In trouble, how often it is looked whether a sync works again: there may be nothing to print for long.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn run(cli: &Cli, listen: &Listen, output: Output) -> Result<()> {
    let invites = Invites::of(&listen.accept_invites)?;
    let client = profile::builder(cli)?
        .accept_invites(invites)
        .accept(accepted(listen))
        .open()
        .await?;
    if listen.once {
        return once(client, listen, output).await;
    }
    output.note(&format!(
        "listening as {} device {}; Ctrl-C ends it",
        client.user_id(),
        client.device_id()
    ));
    let listened = tokio::select! {
        listened = follow(&client, listen, output) => listened,
        () = asked_to_end() => Ok(()),
    };
    client.close().await?;
    listened
}

/// Whose messages are printed.
const fn accepted(listen: &Listen) -> Accept {
    match (listen.only_verified, listen.only_cross_signed) {
        (true, _) => Accept::Verified,
        (_, true) => Accept::CrossSigned,
        _ => Accept::Everybody,
    }
}

async fn follow(client: &Client, listen: &Listen, output: Output) -> Result<()> {
    let mut events = std::pin::pin!(client.events());
    let mut printed = 0;
    let mut trouble = Trouble::default();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(LOOK), if trouble.is_on() => {
                let worked = client.orchestrator().since_last_sync();
                if let Some(over) = worked.and_then(|worked| trouble.is_over_since(worked)) {
                    output.note(&over);
                }
                continue;
            }
        };
        let Some(event) = event else {
            return Ok(());
        };
        match event {
            Ok(event) => {
                if let Some(over) = trouble.is_over() {
                    output.note(&over);
                }
                // Acknowledged by asking for the next one, right after the line is out.
                show(&event, output)?;
                save(client, &event, listen, output).await?;
                printed += 1;
                if listen.count.is_some_and(|count| printed >= count) {
                    // Everything before it is acknowledged: it is the oldest that waits.
                    let last = client.orchestrator().inbox(None, 1).await.map_err(Error::from)?;
                    client.orchestrator().acknowledge(&last).await.map_err(Error::from)?;
                    return Ok(());
                }
            }
            Err(error) if error.is_transient() => {
                if let Some(told) = trouble.goes_on(error.code(), &error) {
                    output.note(&told);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn once(client: Client, listen: &Listen, output: Output) -> Result<()> {
    let mut left = listen.count.unwrap_or(u64::MAX);
    'all: loop {
        let mut waiting = client.orchestrator().inbox(None, 100).await.map_err(Error::from)?;
        client.answer_invites(&mut waiting).await;
        if waiting.is_empty() {
            client.sync().await?;
            if client
                .orchestrator()
                .inbox(None, 1)
                .await
                .map_err(Error::from)?
                .is_empty()
            {
                break;
            }
        }
        for delivery in waiting {
            if left == 0 {
                break 'all;
            }
            show(&delivery.event, output)?;
            save(&client, &delivery.event, listen, output).await?;
            client
                .orchestrator()
                .acknowledge(&[delivery])
                .await
                .map_err(Error::from)?;
            left -= 1;
        }
    }
    client.close().await?;
    Ok(())
}

/// Keep the file of an event before it is acknowledged: one that was not kept comes again. What the sender or somebody's
/// server is to blame for is told and passed over, after a few attempts where it may pass: nobody else's events wait for it.
async fn save(client: &Client, event: &Event, listen: &Listen, output: Output) -> Result<()> {
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

fn show(event: &Event, output: Output) -> std::io::Result<()> {
    output.show(&json!(event), &clean(&line(event)))
}

fn line(event: &Event) -> String {
    match event {
        Event::Message(message) => text(message),
        Event::Invite(invite) => {
            let inviter = invite.inviter.as_ref().map_or("somebody", |user| user.as_str());
            let what = if invite.joined {
                "and you joined".to_owned()
            } else {
                format!("mx room join '{}'", invite.room_id)
            };
            format!("{} * {inviter} invites you: {what}", invite.room_id)
        }
        Event::Undecryptable(event) => {
            let why = json!(event.reason)["code"].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} ! undecryptable event {} ({why}): {}",
                event.room_id, event.sender, event.event_id, event.advice
            )
        }
        Event::Rejected(event) => format!(
            "{} {} ! rejected event {}: {}",
            event.room_id,
            event.sender,
            event.event_id,
            rejected(&event.reason)
        ),
        Event::Lost(event) => format!(
            "{} {} ! gave up on undecryptable event {}: {}",
            event.room_id,
            event.sender,
            event.event_id,
            lost(event.because)
        ),
        Event::Malformed(event) => format!("{} ! the homeserver gave something that is no event", event.room_id),
        Event::Gap(gap) => format!(
            "{} ! events were missed: the homeserver has more than could be asked for ({} were recovered)",
            gap.room_id, gap.recovered
        ),
        Event::DeviceRejected(event) => format!(
            "{} ! device {} is not used: {}",
            event.user_id,
            clean(event.device_id.as_str()),
            event.reason.describe()
        ),
        Event::IdentityChanged(event) => format!("{} ! the identity of this user was replaced", event.user_id),
        Event::EncryptionTampered(event) => {
            format!("{} ! {}, which is not followed", event.room_id, event.change.describe())
        }
        Event::SendRefused(event) => format!(
            "{} ! an event that waited to be sent is refused by the homeserver and was dropped (transaction {}, status {}{})",
            event.room_id,
            event.transaction_id,
            event.status,
            event
                .errcode
                .as_deref()
                .map(|code| format!(", {}", clean(code)))
                .unwrap_or_default()
        ),
        event => about_trust(event),
    }
}

fn about_trust(event: &Event) -> String {
    match event {
        Event::OwnIdentity(event) => format!("! {} [{}]", event.advice, event.standing.code()),
        Event::TrustDrift(event) => {
            let words: Vec<String> = event.differences.iter().map(ToString::to_string).collect();
            format!("! differs from the trust manifest: {}", words.join("; "))
        }
        Event::BackupStopped(event) => format!("! {}", event.advice),
        event => verification(event),
    }
}

fn verification(event: &Event) -> String {
    match event {
        Event::VerificationRequested(event) => format!(
            "{} ? asks to verify this device: run mx verify listen instead, and let them ask again",
            event.id.user_id
        ),
        Event::VerificationEnded(event) => match &event.outcome {
            VerificationOutcome::Done { .. } => format!("{} * is verified", event.id.user_id),
            VerificationOutcome::Cancelled { reason, code, .. } => format!(
                "{} ! the verification was cancelled: {} ({})",
                event.id.user_id,
                clean(reason),
                clean(code)
            ),
            _ => format!("{} ! the verification ended", event.id.user_id),
        },
        _ => "! something that this version of mx cannot show: use --json".to_owned(),
    }
}

const fn lost(because: LostBecause) -> &'static str {
    match because {
        LostBecause::TooMany => "more events wait for their keys than are kept",
        LostBecause::LeftRoom => "we are not in the room any more",
        _ => "it is not kept",
    }
}

fn rejected(reason: &RejectedReason) -> String {
    match reason {
        RejectedReason::Replay { first } => format!("it replays {first}"),
        RejectedReason::IndexReuse { first } => format!(
            "its place in the sender's key was used by {first}: the sender's store was set back or copied, or it is forged"
        ),
        RejectedReason::SenderMismatch { owner: Some(owner) } => format!("its key belongs to {owner}"),
        RejectedReason::SenderMismatch { owner: None } => "its sender is not the owner of its key".to_owned(),
        RejectedReason::SenderUnattributed => "its key was given in the name of another device".to_owned(),
        RejectedReason::StateEvent => "a room's state is never encrypted".to_owned(),
        RejectedReason::Plaintext => "it came as plaintext into an encrypted room".to_owned(),
        RejectedReason::NestedEncryption => "it is encrypted twice".to_owned(),
        _ => "it cannot be believed".to_owned(),
    }
}

fn text(message: &Message) -> String {
    let mark = match (&message.encryption, message.plaintext_in_encrypted_room) {
        (Some(_), _) => "",
        (None, true) => " (PLAINTEXT IN AN ENCRYPTED ROOM)",
        (None, false) => " (plaintext)",
    };
    let body = match message.body() {
        Some(body) => clean(body),
        None => format!(
            "[{}] {}",
            clean(&message.event_type),
            clean(&message.content.to_string())
        ),
    };
    format!("{} {}{mark}: {body}", message.room_id, message.sender)
}
