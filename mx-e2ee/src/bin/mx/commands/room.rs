//! `mx room`.

mod show;

use anyhow::Result;
use mx_e2ee::{Client, Error, Recipients, Room, RoomPolicy, ruma::OwnedUserId};
use serde_json::json;

use crate::{
    cli::{Cli, Policy, RoomCommand},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &RoomCommand, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    match command {
        RoomCommand::Show { room, html, force } => {
            show::run(&client, room, html.as_deref().map(|path| (path, *force)), output).await?;
        }
        RoomCommand::List => list(&client, output).await?,
        RoomCommand::Create {
            name,
            invite,
            plaintext,
        } => {
            let invite = invite.iter().map(|user| user_id(user)).collect::<Result<Vec<_>, _>>()?;
            let room = if *plaintext {
                client.create_plaintext_room(name.as_deref(), &invite).await?
            } else {
                client.create_room(name.as_deref(), &invite).await?
            };
            shown(&room, output)?;
        }
        RoomCommand::Join { room } => shown(&client.join(room).await?, output)?,
        RoomCommand::Invite {
            room,
            user,
            share_history,
        } => {
            let room = by_name(&client, room).await?;
            if *share_history {
                invite_with_history(&room, &user_id(user)?, output).await?;
            } else {
                room.invite(&user_id(user)?).await?;
                output.note(&format!("{user} is invited"));
            }
        }
        RoomCommand::Encrypt { room } => {
            let room = by_name(&client, room).await?;
            room.mark_encrypted().await?;
            output.note("the room is encrypted from now on");
        }
        RoomCommand::Members { room } => {
            for member in by_name(&client, room).await?.members().await? {
                let name = member.display_name.as_deref().unwrap_or_default();
                output.show(
                    &json!(member),
                    clean(format!("{:<7} {} {name}", member.membership, member.user_id).trim_end()).as_str(),
                )?;
            }
        }
        RoomCommand::RotateKey { room } => {
            by_name(&client, room).await?.rotate_key().await?;
            output.note("the next message has a new room key");
        }
        RoomCommand::Policy(policy) => self::policy(&client, policy, output).await?,
    }
    client.close().await?;
    Ok(())
}

async fn invite_with_history(room: &Room, user: &OwnedUserId, output: Output) -> Result<()> {
    let shared = room.invite_with_history(user).await?;
    let line = format!(
        "{user} is invited, and {} of their devices can have {} room keys ({} withheld)",
        shared.devices, shared.room_keys, shared.withheld
    );
    output.show(&json!({"user_id": user, "history": shared}), &clean(&line))?;
    Ok(())
}

/// Change what was asked for, and show what holds.
async fn policy(client: &Client, change: &Policy, output: Output) -> Result<()> {
    let room = by_name(client, &change.room).await?;
    let mut policy = if change.reset {
        RoomPolicy::default()
    } else {
        room.policy().await?
    };
    if let Some(recipients) = change.care.recipients() {
        policy.recipients = Some(recipients);
    }
    if !change.allow.is_empty() {
        let users = change.allow.iter().map(|user| user_id(user));
        policy.allowed = Some(users.collect::<Result<_, _>>()?);
    }
    if policy != room.policy().await? {
        room.set_policy(policy.clone()).await?;
    }
    let mut line = match policy.recipients {
        Some(Recipients::Strict) => "strict",
        Some(Recipients::BestEffort) => "best effort",
        Some(Recipients::OnlyTrusted) => "only trusted devices",
        _ => "as careful as the client",
    }
    .to_owned();
    match &policy.allowed {
        None => line.push_str(", every member"),
        Some(users) => {
            let names: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
            line.push_str(&format!(", only for {}", names.join(" ")));
        }
    }
    output.show(&json!(policy), &line)?;
    Ok(())
}

async fn list(client: &Client, output: Output) -> Result<()> {
    let progress = output.progress("asking about rooms");
    let mut lines = Vec::new();
    for room in client.rooms().await? {
        let encrypted = room.is_encrypted().await?;
        let name = room.name().await?;
        let kind = if encrypted { "encrypted" } else { "plaintext" };
        let line = clean(&format!("{} {kind} {}", room.id(), name.as_deref().unwrap_or_default()));
        lines.push((
            json!({"room_id": room.id(), "encrypted": encrypted, "name": name}),
            line,
        ));
    }
    progress.finish_and_clear();
    for (json, line) in lines {
        output.show(&json, line.trim_end())?;
    }
    Ok(())
}

pub(super) async fn by_name(client: &Client, room: &str) -> Result<Room, Error> {
    Ok(client.room(&client.resolve(room).await?))
}

fn shown(room: &Room, output: Output) -> std::io::Result<()> {
    output.show(&json!({"room_id": room.id()}), &clean(room.id().as_str()))
}

pub(super) fn user_id(given: &str) -> Result<OwnedUserId, Error> {
    OwnedUserId::try_from(given).map_err(|_| Error::InvalidId {
        given: given.to_owned(),
        wanted: "a user id (@name:server)",
    })
}
