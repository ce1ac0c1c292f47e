//! Cell 5: a peer's store is set back, so that the Olm sessions with it are broken.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, bail};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    peer::{Kind, Peer},
    stage::Stage,
};

/// After so many new room keys each way, it must be well again.
const ROUNDS: usize = 6;
/// A message that can be read is read within this.
const SOON: Duration = Duration::from_secs(8);

pub(super) async fn heals(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, mut theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    stage.talk(&room, &[&ours, &theirs, &ours]).await?;
    theirs.close().await?;
    let kept = stage.directory();
    copy(&theirs.directory, &kept)?;
    theirs.open().await?;
    stage.ready(&room, &[&ours, &theirs]).await?;
    // Every new room key moves the Olm session on, each way.
    for _ in 0..3 {
        rotate(&room, &[&ours, &theirs]).await?;
        stage.talk(&room, &[&ours, &theirs]).await?;
    }
    theirs.close().await?;
    fs::remove_dir_all(&theirs.directory)?;
    copy(&kept, &theirs.directory)?;
    theirs.open().await?;
    stage.ready(&room, &[&ours, &theirs]).await?;
    // The others wait for an hour before they make a new session, counted from the one that broke.
    theirs.ask(json!({"do": "age", "hours": 2})).await?;
    let broken = Instant::now();
    let mut lost = (0, 0);
    for round in 1..=ROUNDS {
        rotate(&room, &[&ours, &theirs]).await?;
        let one = ours.say(&room, &stage.text("after the set back")).await?;
        let read_by_theirs = within(&theirs, &one).await;
        let two = theirs.say(&room, &stage.text("after the set back")).await?;
        let read_by_ours = within(&ours, &two).await;
        lost = (
            lost.0 + usize::from(!read_by_theirs),
            lost.1 + usize::from(!read_by_ours),
        );
        if read_by_theirs && read_by_ours {
            stage.talk(&room, &[&ours, &theirs]).await?;
            let seconds = broken.elapsed().as_secs_f32();
            let (theirs, ours) = lost;
            return Ok(format!(
                "well in round {round}, after {seconds:.0} s; until then {theirs} messages of ours and {ours} of theirs were lost"
            ));
        }
    }
    let (theirs, ours) = lost;
    bail!("not well after {ROUNDS} new room keys each way: {theirs} messages of ours and {ours} of theirs were lost")
}

async fn within(who: &Peer, event: &str) -> bool {
    let read = who
        .ledger
        .until(SOON, |ledger| (!ledger.readings(event).is_empty()).then_some(()));
    read.await.is_some()
}

async fn rotate(room: &str, all: &[&Peer]) -> Result<()> {
    for peer in all {
        peer.ask(json!({"do": "rotate", "room": room})).await?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
