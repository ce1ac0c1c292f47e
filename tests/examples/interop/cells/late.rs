//! Cell 6: who joins late, a message that overtakes its key, and one from between an invitation and the join.

use anyhow::{Context, Result, ensure};

use crate::{
    peer::{Kind, Peer},
    proxy::{Proxy, Weather},
    stage::{self, Stage},
};

pub(super) async fn joiner(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    for late in [kind, Kind::Ours] {
        let early = if late == Kind::Ours { kind } else { Kind::Ours };
        let (early, other) = (
            stage.peer(early, "early").await?,
            stage.peer(Kind::Ours, "other").await?,
        );
        let room = stage.room(&early, &[&other]).await?;
        let old = early.say(&room, &stage.text("before anybody came")).await?;
        other.reads(&old).await?;
        let late = stage.peer(late, "late").await?;
        stage::membership(&stage.server, "invite", &room, &early, &late).await?;
        stage::go(&stage.server, "join", &room, &late).await?;
        stage.ready(&room, &[&early, &other, &late]).await?;
        stage.talk(&room, &[&early, &late, &other]).await?;
        let unreadable = late.ledger.cannot_read(&old).await;
        unreadable.with_context(|| format!("{} was not shown the old message", late.name()))?;
        late.has_not_read(&old)?;
    }
    Ok("each way: nothing from before, all from then on".to_owned())
}

/// The key is held on its way, and the message is not.
pub(super) async fn before_key(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let mut seen = Vec::new();
    for (speaks, listens) in [(Kind::Ours, kind), (kind, Kind::Ours)] {
        let proxy = Proxy::before(stage.server.url()).await?;
        let speaker = stage.peer_on(&stage.server, &proxy.url(), speaks, "speaker").await?;
        let listener = stage.peer(listens, "listener").await?;
        let room = stage.room(&speaker, &[&listener]).await?;
        proxy.weather(Weather::Hold("/sendToDevice/m.room.encrypted/"));
        let text = stage.text("faster than its key");
        let event = speaker.say(&room, &text).await?;
        // Ours tells of it only after a while, since a key may be on its way; the others at once.
        if listens != Kind::Ours {
            let unreadable = listener.ledger.cannot_read(&event).await;
            unreadable.with_context(|| format!("{} read without a key", listener.name()))?;
        } else {
            arrived(stage, &listener, &room, &event).await?;
        }
        ensure!(
            listener.ledger.readings(&event).is_empty(),
            "{} read without a key",
            listener.name()
        );
        let held = proxy.let_go().await?;
        ensure!(held > 0, "no key was held");
        let read = listener.reads(&event).await?;
        ensure!(
            read["content"]["body"] == text.as_str(),
            "{} read something else",
            listener.name()
        );
        seen.push(match read["encryption"]["waited_ms"].as_u64() {
            Some(waited) => format!("ours waited {waited} ms for the key"),
            None => format!("{} read it when the key came", listener.kind()),
        });
    }
    Ok(seen.join("; "))
}

/// Our device has taken the event: a later one, which needs no key, was delivered.
async fn arrived(stage: &Stage<'_>, listener: &Peer, room: &str, event: &str) -> Result<()> {
    let witness = stage.peer(Kind::Ours, "witness").await?;
    stage::membership(&stage.server, "invite", room, listener, &witness).await?;
    let events = stage.server.history(room, &listener.token().await).await?;
    ensure!(
        events.iter().any(|one| one["event_id"] == event),
        "the event is not there"
    );
    // A room that nobody has spoken in before: its message comes in a later sync than the event.
    let other = stage.room(&witness, &[listener]).await?;
    let fence = witness.say(&other, &stage.text("a fence")).await?;
    listener.reads(&fence).await.map(drop)
}

/// Said after the invitation, and before the join: who is invited may read.
pub(super) async fn before_join(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    for (speaks, listens) in [(Kind::Ours, kind), (kind, Kind::Ours)] {
        let (speaker, listener) = (
            stage.peer(speaks, "speaker").await?,
            stage.peer(listens, "listener").await?,
        );
        let room = stage::create(&stage.server, &speaker).await?;
        stage::membership(&stage.server, "invite", &room, &speaker, &listener).await?;
        let known = serde_json::json!({
            "do": "ready", "room": room, "members": [listener.user], "devices": [[listener.user, listener.device]],
        });
        speaker.ask(known).await?;
        let event = speaker.say(&room, &stage.text("for who is invited")).await?;
        stage::go(&stage.server, "join", &room, &listener).await?;
        listener.reads(&event).await?;
        stage.ready(&room, &[&speaker, &listener]).await?;
        stage.talk(&room, &[&listener, &speaker]).await?;
    }
    Ok("each way".to_owned())
}
