//! Cell 3: who must not read, cannot.

use anyhow::{Context, Result, ensure};

use crate::{
    peer::{Kind, Peer},
    stage::{self, Stage},
};

/// Ours, theirs, and a third device of their implementation, who have talked: five messages each of ours.
async fn three(stage: &Stage<'_>, kind: Kind) -> Result<(Peer, Peer, Peer, String)> {
    let ours = stage.peer(Kind::Ours, "ours").await?;
    let (theirs, third) = (stage.peer(kind, "theirs").await?, stage.peer(kind, "third").await?);
    let room = stage.room(&ours, &[&theirs, &third]).await?;
    stage
        .talk(&room, &[&ours, &ours, &theirs, &ours, &third, &ours, &ours])
        .await?;
    Ok((ours, theirs, third, room))
}

/// Both say something that the other reads; returns the events.
async fn secrets(stage: &Stage<'_>, room: &str, ours: &Peer, theirs: &Peer) -> Result<[String; 2]> {
    let one = ours.say(room, &stage.text("secret")).await?;
    theirs.reads(&one).await?;
    let two = theirs.say(room, &stage.text("secret")).await?;
    ours.reads(&two).await?;
    Ok([one, two])
}

/// The third is back, talks, and still cannot read what was said without it.
async fn back(stage: &Stage<'_>, room: &str, all: [&Peer; 3], secrets: &[String]) -> Result<()> {
    let [ours, theirs, third] = all;
    stage::membership(&stage.server, "invite", room, ours, third).await?;
    stage::go(&stage.server, "join", room, third).await?;
    stage.ready(room, &[ours, theirs, third]).await?;
    stage.talk(room, &[ours, third, theirs]).await?;
    for secret in secrets {
        // The history is shared: the event comes, and its key does not.
        let unreadable = third.ledger.cannot_read(secret).await;
        unreadable.with_context(|| format!("{} was not shown {secret}", third.name()))?;
        third.has_not_read(secret)?;
    }
    Ok(())
}

/// The key of an event is another than that of an earlier one.
async fn rotated(stage: &Stage<'_>, room: &str, ours: &Peer, before: &str, after: &str) -> Result<()> {
    let server = &stage.server;
    let before = stage::session_of(server, room, before, ours).await?;
    ensure!(
        before != stage::session_of(server, room, after, ours).await?,
        "the room key stayed"
    );
    Ok(())
}

pub(super) async fn kicked(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, theirs, third, room) = three(stage, kind).await?;
    let before = ours.say(&room, &stage.text("before")).await?;
    third.reads(&before).await?;
    stage::membership(&stage.server, "kick", &room, &ours, &third).await?;
    gone(&room, &[&ours, &theirs], &third).await?;
    let secrets = secrets(stage, &room, &ours, &theirs).await?;
    rotated(stage, &room, &ours, &before, &secrets[0]).await?;
    back(stage, &room, [&ours, &theirs, &third], &secrets).await?;
    let messages = stage::sound(&stage.server, &room, &ours).await?;
    Ok(format!("{messages} messages, 2 of them unreadable to who was kicked"))
}

pub(super) async fn left(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, theirs, third, room) = three(stage, kind).await?;
    let before = ours.say(&room, &stage.text("before")).await?;
    third.reads(&before).await?;
    stage::go(&stage.server, "leave", &room, &third).await?;
    gone(&room, &[&ours, &theirs], &third).await?;
    let secrets = secrets(stage, &room, &ours, &theirs).await?;
    rotated(stage, &room, &ours, &before, &secrets[0]).await?;
    back(stage, &room, [&ours, &theirs, &third], &secrets).await?;
    Ok("left, came back, and reads what was said since".to_owned())
}

/// Wait until these know that somebody is not in the room any more.
async fn gone(room: &str, all: &[&Peer], who: &Peer) -> Result<()> {
    for peer in all {
        let command = serde_json::json!({"do": "ready", "room": room, "gone": [who.user]});
        peer.ask(command).await?;
    }
    Ok(())
}

pub(super) async fn new_device(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    let old = ours.say(&room, &stage.text("old")).await?;
    theirs.reads(&old).await?;
    let old_of_theirs = theirs.say(&room, &stage.text("old")).await?;
    ours.reads(&old_of_theirs).await?;
    let more = stage.another(&theirs).await?;
    ours.ask(serde_json::json!({"do": "ready", "room": room})).await?;
    let event = ours.say(&room, &stage.text("for both devices")).await?;
    theirs.reads(&event).await?;
    more.reads(&event).await?;
    // The other way: a second device of ours.
    let ours_too = stage.another(&ours).await?;
    stage.ready(&room, &[&theirs, &ours_too]).await?;
    let event = theirs.say(&room, &stage.text("for both of ours")).await?;
    ours.reads(&event).await?;
    ours_too.reads(&event).await?;
    // Ours counts what is older than its device in its first sync, and tells no app of it.
    if kind != Kind::Ours {
        let unreadable = more.ledger.cannot_read(&old).await;
        unreadable.with_context(|| format!("{} was not shown {old}", more.name()))?;
    }
    for (device, event) in [(&more, &old), (&ours_too, &old_of_theirs)] {
        device.has_not_read(event)?;
    }
    Ok("a second device of each".to_owned())
}
