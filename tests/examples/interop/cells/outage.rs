//! Cells 9 and 10: limits, restarts of the homeserver, and a proxy that has a bad time.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::Instant;

use crate::{
    peer::{Kind, Peer},
    proxy::{Proxy, Weather},
    server::Server,
    stage::{self, Stage},
};

/// How long the bad time lasts.
const STORM: Duration = Duration::from_secs(3);
/// A send is tried again so often.
const ATTEMPTS: usize = 60;
const MESSAGES: usize = 20;

/// Send until it is accepted, or safe in the outbox. Returns how often it was refused before.
async fn insist(ours: &Peer, room: &str, text: &str) -> Result<usize> {
    for refused in 0..ATTEMPTS {
        match ours.say(room, text).await {
            Ok(_) => return Ok(refused),
            Err(error) if format!("{error:#}").contains("[send_pending]") => return Ok(refused + 1),
            Err(error) if refused + 1 == ATTEMPTS => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    bail!("never sent")
}

/// Everything was read as exactly one event.
async fn all_once(reader: &Peer, texts: &[String]) -> Result<()> {
    for text in texts {
        let found = reader.ledger.until(Duration::from_secs(90), |ledger| {
            let events = ledger.with_body(text);
            (!events.is_empty()).then_some(events)
        });
        let events = found
            .await
            .with_context(|| format!("{} never read {text:?}", reader.name()))?;
        ensure!(
            events.len() == 1,
            "{} read {text:?} as {} events",
            reader.name(),
            events.len()
        );
    }
    Ok(())
}

fn texts(stage: &Stage<'_>, count: usize, what: &str) -> Vec<String> {
    (0..count).map(|_| stage.text(what)).collect()
}

/// Synapse's own limits: ten messages at once, then one in five seconds, and a room is a message too.
pub(super) async fn limits(stage: &Stage<'_>, _: Kind) -> Result<String> {
    let server = Server::start(stage.plan.server("limited")?).await?;
    let ours = stage.peer_on(&server, server.url(), Kind::Ours, "ours").await?;
    let js = stage.peer_on(&server, server.url(), Kind::Js, "js").await?;
    let nio = stage.peer_on(&server, server.url(), Kind::Nio, "nio").await?;
    let room = stage::room_on(&server, &ours, &[&js, &nio]).await?;
    let started = Instant::now();
    let (mine, others) = (texts(stage, 15, "limited"), texts(stage, 12, "limited"));
    let speaking = async {
        let mut refused = 0;
        for text in &mine {
            refused += insist(&ours, &room, text).await?;
        }
        anyhow::Ok(refused)
    };
    let answering = async {
        for text in &others {
            nio.say(&room, text).await?;
        }
        anyhow::Ok(())
    };
    let (refused, ()) = tokio::try_join!(speaking, answering)?;
    all_once(&js, &mine).await?;
    all_once(&nio, &mine).await?;
    all_once(&ours, &others).await?;
    let messages = stage::sound(&server, &room, &ours).await?;
    stage.only_ciphertext(&server)?;
    let seconds = started.elapsed().as_secs_f32();
    ensure!(seconds > 10.0, "no limit was met");
    Ok(format!(
        "{messages} messages in {seconds:.0} s; {refused} sends had to be asked for again"
    ))
}

/// Send all of it while something happens to the way after the fifth.
async fn through<F: Future<Output = Result<()>>>(
    stage: &Stage<'_>,
    peers: [&Peer; 2],
    room: &str,
    happens: F,
) -> Result<usize> {
    let [ours, theirs] = peers;
    let (mine, others) = (
        texts(stage, MESSAGES, "in a storm"),
        texts(stage, MESSAGES, "in a storm"),
    );
    let mut refused = 0;
    for text in mine.iter().take(5) {
        refused += insist(ours, room, text).await?;
    }
    let speaking = async {
        let mut refused = 0;
        for text in mine.iter().skip(5) {
            refused += insist(ours, room, text).await?;
        }
        anyhow::Ok(refused)
    };
    let (more, ()) = tokio::try_join!(speaking, happens)?;
    refused += more;
    for text in &others {
        theirs.say(room, text).await?;
    }
    stage.talk(room, &[ours, theirs]).await?;
    all_once(theirs, &mine).await?;
    all_once(ours, &others).await?;
    Ok(refused)
}

pub(super) async fn restarted(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let server = Server::start(stage.plan.server("restarted")?).await?;
    let ours = stage.peer_on(&server, server.url(), Kind::Ours, "ours").await?;
    let theirs = stage.peer_on(&server, server.url(), kind, "theirs").await?;
    let room = stage::room_on(&server, &ours, &[&theirs]).await?;
    stage.talk(&room, &[&ours, &theirs]).await?;
    let restart = async {
        server.down().await?;
        tokio::time::sleep(STORM).await;
        server.up().await
    };
    let refused = through(stage, [&ours, &theirs], &room, restart).await?;
    stage::sound(&server, &room, &ours).await?;
    stage.only_ciphertext(&server)?;
    Ok(format!(
        "{MESSAGES} messages each way, each once; {refused} sends had to be asked for again"
    ))
}

pub(super) async fn weather(stage: &Stage<'_>, kind: Kind, weather: Weather) -> Result<String> {
    let proxy = Proxy::before(stage.server.url()).await?;
    let ours = stage.peer_on(&stage.server, &proxy.url(), Kind::Ours, "ours").await?;
    let theirs = stage.peer(kind, "theirs").await?;
    let room = stage.room(&ours, &[&theirs]).await?;
    stage.talk(&room, &[&ours, &theirs]).await?;
    let storm = async {
        proxy.weather(weather);
        tokio::time::sleep(STORM).await;
        proxy.weather(Weather::Fair);
        Ok(())
    };
    let refused = through(stage, [&ours, &theirs], &room, storm).await?;
    stage::sound(&stage.server, &room, &ours).await?;
    let touched = proxy.touched();
    ensure!(touched > 0, "nothing happened to any request");
    Ok(format!(
        "{touched} requests hit; all once; {refused} sends had to be asked for again"
    ))
}
