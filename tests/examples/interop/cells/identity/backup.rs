//! Key backups and secret storages: made by one implementation, opened by another.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{PASSWORD, compare::text_of, recovered, set_up, until};
use crate::{
    peer::{Kind, Peer},
    stage::{self, Stage},
};

/// Rooms that an account was in, and left: a device that comes later is shown what was said when the account is back.
pub(super) struct Left {
    other: Peer,
    rooms: Vec<(String, Vec<(String, String)>)>,
}

/// Let a device hear things in so many rooms that only the backup will know.
pub(super) async fn leave_behind(stage: &Stage<'_>, holder: &Peer, rooms: usize) -> Result<Left> {
    let other = stage.peer(Kind::Ours, "other").await?;
    let mut left = Vec::new();
    for _ in 0..rooms {
        let room = stage.room(&other, &[holder]).await?;
        let mut said = Vec::new();
        for _ in 0..2 {
            let words = stage.text("for the backup");
            let event = other.say(&room, &words).await?;
            holder.reads(&event).await?;
            said.push((event, words));
            other.ask(json!({"do": "rotate", "room": room})).await?;
        }
        left.push((room, said));
    }
    holder.ask(json!({"do": "backed_up", "count": 2 * rooms})).await?;
    for (room, _) in &left {
        stage::go(&stage.server, "leave", room, holder).await?;
    }
    Ok(Left { other, rooms: left })
}

impl Left {
    /// The account comes back to one of the rooms, and its new device reads everything.
    pub(super) async fn read_by(&self, stage: &Stage<'_>, new: &Peer, which: usize) -> Result<()> {
        let (room, said) = self.rooms.get(which).context("no such room")?;
        stage::membership(&stage.server, "invite", room, &self.other, new).await?;
        stage::go(&stage.server, "join", room, new).await?;
        for (event, words) in said {
            let read = new.reads(event).await?;
            ensure!(
                read["content"]["body"] == words.as_str(),
                "{} read something else",
                new.name()
            );
            if new.kind() == Kind::Ours {
                let trust = &read["encryption"]["trust"];
                ensure!(trust == "imported", "ours trusts a key of the backup: {trust}");
            }
        }
        Ok(())
    }
}

/// One implementation makes everything; the other comes with the recovery key.
async fn restored(stage: &Stage<'_>, maker: Kind, taker: Kind) -> Result<String> {
    let maker = stage.peer(maker, "maker").await?;
    let key = set_up(&maker).await?;
    let left = leave_behind(stage, &maker, 1).await?;
    let taker = recovered(stage, taker, &maker, &key).await?;
    let [made, taken] = [&maker, &taker].map(|who| async {
        // Its own signature comes back to a new device with a later answer.
        let status = until(who, json!({"do": "identity_status"}), |status| {
            status["private_keys"] == true && status["cross_signed"] == true && status["backup_version"].is_string()
        })
        .await?;
        Ok::<_, anyhow::Error>((text_of(&status, "master_key")?, text_of(&status, "backup_version")?))
    });
    let (made, taken) = (made.await?, taken.await?);
    ensure!(made == taken, "identity and backup differ: {made:?} and {taken:?}");
    left.read_by(stage, &taker, 0).await?;
    Ok(format!("version {}", made.1))
}

pub(in super::super) async fn theirs_restored_here(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let version = restored(stage, kind, Kind::Ours).await?;
    by_passphrase(stage, kind).await?;
    Ok(format!(
        "{version}: storage opened by recovery key and by passphrase, all read"
    ))
}

pub(in super::super) async fn ours_restored_there(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let version = restored(stage, Kind::Ours, kind).await?;
    Ok(format!("{version}: storage opened by recovery key, all read"))
}

/// A secret storage that a passphrase opens, too.
async fn by_passphrase(stage: &Stage<'_>, kind: Kind) -> Result<()> {
    let maker = stage.peer(kind, "maker").await?;
    let words = "correct horse, ünd so weiter";
    let made = json!({"do": "identity_setup", "password": PASSWORD, "passphrase": words});
    maker.ask(made).await?;
    recovered(stage, Kind::Ours, &maker, words).await.map(drop)
}
