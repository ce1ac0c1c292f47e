//! Cell 2: restarts and kills.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::{
    inexcusable::Inexcusable,
    peer::{Kind, Peer},
    stage::{self, Stage},
};

/// How many messages go each way.
const BURST: usize = 200;
/// After how many of them our process is killed.
const KILLS: [usize; 2] = [60, 130];

pub(super) async fn from_stores(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (mut ours, mut theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    stage.talk(&room, &[&ours, &theirs]).await?;
    for _ in 0..2 {
        ours.close().await?;
        let missed = theirs.say(&room, &stage.text("while ours is away")).await?;
        theirs.close().await?;
        ours.open().await?;
        let waiting = ours.say(&room, &stage.text("while theirs is away")).await?;
        theirs.open().await?;
        ours.reads(&missed).await?;
        theirs.reads(&waiting).await?;
        stage.ready(&room, &[&ours, &theirs]).await?;
        stage.talk(&room, &[&ours, &theirs, &ours]).await?;
    }
    let again = ours.ledger.repeated();
    if again > 0 {
        return Err(Inexcusable(format!("ours was given {again} events again")).into());
    }
    let messages = stage::sound(&stage.server, &room, &ours).await?;
    Ok(format!("2 restarts each, {messages} messages"))
}

/// What became of our messages: the event of those that were accepted, nothing of those that a kill interrupted.
type Sent = Vec<(String, Option<String>)>;

pub(super) async fn killed(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (mut ours, theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    stage.talk(&room, &[&ours, &theirs]).await?;
    let texts: Vec<_> = (0..BURST)
        .map(|_| (stage.text("of ours"), stage.text("of theirs")))
        .collect();
    let speaking = async {
        let mut said = Vec::new();
        for (_, text) in &texts {
            said.push((text.clone(), Some(theirs.say(&room, text).await?)));
        }
        anyhow::Ok(said)
    };
    let being_killed = burst(&mut ours, &room, texts.iter().map(|(text, _)| text.clone()).collect());
    let (said, sent) = tokio::try_join!(speaking, being_killed)?;
    // What waits in the outbox goes before it.
    stage.talk(&room, &[&ours, &theirs]).await?;
    let lost = once(&ours, &said).await? + once(&theirs, &sent).await?;
    let messages = stage::sound(&stage.server, &room, &ours).await?;
    let interrupted = sent.iter().filter(|(_, event)| event.is_none()).count();
    Ok(format!(
        "{messages} messages, {} kills; {interrupted} interrupted sends, of which {} arrived; {} given again",
        KILLS.len(),
        interrupted - lost,
        ours.ledger.repeated()
    ))
}

/// Send all of it, four at a time, with kills in between.
async fn burst(ours: &mut Peer, room: &str, texts: Vec<String>) -> Result<Sent> {
    let mut sent = Vec::new();
    let mut from = 0;
    for to in KILLS.into_iter().chain([texts.len()]) {
        let part: Vec<String> = texts.get(from..to).context("a part of the burst")?.to_vec();
        let last = to == texts.len();
        sent.extend(volley(ours, room, part, !last).await?);
        if !last {
            ours.open().await?;
        }
        from = to;
    }
    Ok(sent)
}

/// Ask for all at once. With `kill`, the process dies when half of it was accepted.
async fn volley(ours: &mut Peer, room: &str, texts: Vec<String>, kill: bool) -> Result<Sent> {
    let enough = if kill { texts.len() / 2 } else { texts.len() };
    let (done, mut accepted) = tokio::sync::watch::channel(0_usize);
    let done = Arc::new(done);
    let sends = {
        let ours = &*ours;
        let one = |text: String| {
            let done = Arc::clone(&done);
            async move {
                let event = ours.say(room, &text).await;
                if event.is_ok() {
                    done.send_modify(|count| *count += 1);
                }
                (text, event)
            }
        };
        let all = futures_util::future::join_all(texts.into_iter().map(one));
        let killing = async {
            accepted.wait_for(|count| *count >= enough).await?;
            if kill {
                ours.sigkill()?;
            }
            anyhow::Ok(())
        };
        let (sends, killing) = tokio::join!(all, killing);
        killing?;
        sends
    };
    if kill {
        ours.kill().await?;
    } else if let Some((text, Err(error))) = sends.iter().find(|(_, event)| event.is_err()) {
        bail!("{text:?} was not sent: {error:#}");
    }
    Ok(sends.into_iter().map(|(text, event)| (text, event.ok())).collect())
}

/// Every accepted message was read as exactly one event, every interrupted one as one or none. Returns how many as none.
async fn once(reader: &Peer, sent: &Sent) -> Result<usize> {
    let mut never = 0;
    for (text, event) in sent {
        if let Some(event) = event {
            reader.reads(event).await?;
        }
        let events = reader.ledger.with_body(text);
        match (events.len(), event) {
            (0, None) => never += 1,
            (1, None) => {}
            (1, Some(event)) if events.first() == Some(event) => {}
            (count, _) => {
                let seen = format!("{} read {text:?} as {count} events", reader.name());
                return Err(Inexcusable(seen).into());
            }
        }
    }
    let again = reader.ledger.repeated();
    // What was given and not acknowledged before a kill is given again: at most one batch for each.
    ensure!(again <= 100 * KILLS.len(), "{again} events were given again");
    Ok(never)
}
