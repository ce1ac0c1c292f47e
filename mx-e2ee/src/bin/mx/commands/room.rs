//! `mx room`.

use anyhow::Result;
use mx_e2ee::{Client, Error, Room, ruma::OwnedUserId};
use serde_json::json;

use crate::{
    cli::{Cli, RoomCommand},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &RoomCommand, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    match command {
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
        RoomCommand::Invite { room, user } => {
            let room = by_name(&client, room).await?;
            room.invite(&user_id(user)?).await?;
            output.note(&format!("{user} is invited"));
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
    }
    client.close().await?;
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

fn user_id(given: &str) -> Result<OwnedUserId, Error> {
    OwnedUserId::try_from(given).map_err(|_| Error::InvalidId {
        given: given.to_owned(),
        wanted: "a user id (@name:server)",
    })
}
