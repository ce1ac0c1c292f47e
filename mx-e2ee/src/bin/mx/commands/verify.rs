//! `mx verify`: people compare, a policy decides, or another program does.

mod photo;
mod session;
mod show;
mod steps;

use std::{path::Path, time::Duration};

use anyhow::Result;
use mx_e2ee::{
    Client, Error, Verification, VerificationPolicy,
    ruma::{DeviceId, OwnedDeviceId, UserId},
};

use self::session::Session;
use super::{room::user_id, secret};
use crate::{
    cli::{
        Cli,
        verify::{Expected, VerifyCommand},
    },
    output::Output,
    profile,
};

/// How long the homeserver is asked to wait for news.
const LONG_POLL: Duration = Duration::from_secs(30);
/// Between attempts to reach it.
const PAUSE: Duration = Duration::from_secs(2);

/// The verification ended, and nothing was verified.
#[derive(Debug, thiserror::Error)]
#[error("nothing was verified: {0}")]
pub(crate) struct NotVerified(String);

pub(crate) async fn run(cli: &Cli, command: &VerifyCommand, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let done = tokio::select! {
        biased;
        done = Box::pin(verify(&client, command, output)) => done,
        failed = Box::pin(follow(&client, output)) => failed,
        () = crate::signals::asked_to_end() => match command {
            VerifyCommand::Listen { once: false, .. } => Ok(()),
            _ => Err(NotVerified("it was ended before".to_owned()).into()),
        },
    };
    // The last word to the other side leaves, also when it was said just now.
    if let Err(error) = client.sync().await {
        output.note(&format!("mx: {error}"));
    }
    let closed = client.close().await;
    done?;
    Ok(closed?)
}

/// Receive for as long as somebody verifies. Messages stay in the inbox, for `mx listen`.
async fn follow(client: &Client, output: Output) -> Result<()> {
    loop {
        match client.orchestrator().sync(LONG_POLL).await.map_err(Error::from) {
            Ok(_) => {}
            Err(error) if error.is_transient() => {
                output.note(&format!("mx: {error}; trying again [{}]", error.code()));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn verify(client: &Client, command: &VerifyCommand, output: Output) -> Result<()> {
    let (asked, how, expected, policy, once) = match command {
        VerifyCommand::User {
            user,
            room,
            device,
            how,
            expected,
        } => {
            let user = user_id(user)?;
            let device = device.as_deref().map(OwnedDeviceId::from);
            let asked = match (room, &device) {
                (Some(room), _) => client.verify_user_in(&client.resolve(room).await?, &user).await,
                (None, Some(device)) => client.verify_device(&user, device).await,
                (None, None) => client.verify_user(&user).await,
            };
            let asked = ours_or_theirs(client, asked, &user, device.as_deref()).await?;
            (Some(asked), how, Some(expected), None, true)
        }
        VerifyCommand::Own { device, how, expected } => {
            let device = device.as_deref().map(OwnedDeviceId::from);
            let asked = match &device {
                Some(device) => client.verify_device(client.user_id(), device).await,
                None => client.verify_own_devices().await,
            };
            let asked = ours_or_theirs(client, asked, client.user_id(), device.as_deref()).await?;
            (Some(asked), how, Some(expected), None, true)
        }
        VerifyCommand::Listen { policy, once, how } => {
            let policy = policy.as_deref().map(read_policy).transpose()?;
            (None, how, None, policy, *once)
        }
    };
    match &asked {
        Some(one) => output.note(&format!("asked {}: accept it on the other side", one.id().user_id)),
        None => output.note("waiting for somebody who asks to verify; Ctrl-C ends it"),
    }
    let mut session = Session::new(client, output, how, policy.is_none() && asked.is_none());
    let mut policy = policy.unwrap_or_default();
    if let (Some(asked), Some(Expected { expect })) = (&asked, expected)
        && !expect.is_empty()
    {
        policy = policy.expect(&asked.id().user_id, expect.iter().cloned())?;
    }
    if how.qr || how.scan.is_some() {
        policy = policy.start_nothing();
    }
    if let Some(asked) = &asked {
        session.accept(asked, &policy).await;
    }
    session.follow(policy, asked.as_ref().map(|one| one.id()), once).await
}

/// What we asked for; or, where the other side was first, what it asks of us, which is the same.
async fn ours_or_theirs(
    client: &Client,
    asked: Result<Verification, Error>,
    user: &UserId,
    device: Option<&DeviceId>,
) -> Result<Verification> {
    match asked {
        Err(error) if error.code() == "verification_busy" => {
            let theirs = session::theirs(client, user, device).await;
            theirs.ok_or_else(|| error.into())
        }
        asked => Ok(asked?),
    }
}

fn read_policy(path: &Path) -> Result<VerificationPolicy> {
    let json = secret::text_of(path)?;
    Ok(VerificationPolicy::from_json(&json)?)
}
