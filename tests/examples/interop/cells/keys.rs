//! Cell 4: all one-time keys are gone, and the fallback key is used.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    peer::{Kind, Peer},
    server::Server,
    stage::{self, Stage},
};

/// More one-time keys than any implementation publishes.
const MOST: usize = 300;

/// Claim a device's one-time keys until there is only the fallback key. Returns how many there were.
async fn exhaust(server: &Server, by: &Peer, whom: &Peer) -> Result<usize> {
    let claim = json!({"one_time_keys": {&whom.user: {&whom.device: "signed_curve25519"}}});
    for count in 0..MOST {
        let answer = server
            .call("POST", "/keys/claim", Some(&by.token().await), Some(claim.clone()))
            .await?;
        let keys = answer["one_time_keys"][&whom.user][&whom.device].as_object();
        let fallback = keys
            .and_then(|keys| keys.values().next())
            .map(|key| key["fallback"] == true);
        match fallback {
            Some(false) => {}
            Some(true) => return Ok(count),
            None => anyhow::bail!("{} published no fallback key", whom.name()),
        }
    }
    anyhow::bail!("{} has more than {MOST} one-time keys", whom.name())
}

pub(super) async fn of_ours(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let mut ours = stage.peer(Kind::Ours, "ours").await?;
    let (theirs, third) = (stage.peer(kind, "theirs").await?, stage.peer(kind, "third").await?);
    let room = stage.room(&theirs, &[&ours, &third]).await?;
    // A device that does not listen puts no new keys there.
    ours.close().await?;
    let count = exhaust(&stage.server, &theirs, &ours).await?;
    let one = theirs.say(&room, &stage.text("on the fallback key")).await?;
    let two = third.say(&room, &stage.text("on the same fallback key")).await?;
    ours.open().await?;
    ours.reads(&one).await?;
    ours.reads(&two).await?;
    stage.talk(&room, &[&ours, &theirs, &third]).await?;
    more(&stage.server, &ours).await?;
    Ok(format!(
        "{count} one-time keys claimed; the fallback key was used twice"
    ))
}

pub(super) async fn of_theirs(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, mut theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    theirs.close().await?;
    let count = exhaust(&stage.server, &ours, &theirs).await?;
    let event = ours.say(&room, &stage.text("on their fallback key")).await?;
    theirs.open().await?;
    theirs.reads(&event).await?;
    stage::ready(&room, &[&ours, &theirs]).await?;
    stage.talk(&room, &[&theirs, &ours]).await?;
    Ok(format!("{count} one-time keys claimed"))
}

/// New one-time keys are there.
async fn more(server: &Server, whom: &Peer) -> Result<()> {
    for _ in 0..200 {
        let counts = server
            .call("POST", "/keys/upload", Some(&whom.token().await), Some(json!({})))
            .await?;
        if counts["one_time_key_counts"]["signed_curve25519"].as_u64() >= Some(40) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    ensure!(false, "{} put no new one-time keys there", whom.name());
    Ok(())
}
