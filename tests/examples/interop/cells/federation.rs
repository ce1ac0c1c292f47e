//! Cell 13: two homeservers that federate, and one of them is away.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    peer::{Kind, Peer},
    server::{Server, encoded},
    stage::{self, Stage},
};

/// Invite somebody of the other server, who joins.
async fn bring(left: &Server, right: &Server, room: &str, owner: &Peer, guest: &Peer) -> Result<()> {
    stage::membership(left, "invite", room, owner, guest).await?;
    let path = format!("/join/{}?server_name={}", encoded(room), encoded(&left.configured.name));
    right
        .call("POST", &path, Some(&guest.token().await), Some(json!({})))
        .await
        .map(drop)
}

/// Theirs has talked with ours before, and has an Olm session; the newcomer beside it has none. Then their server is away.
pub(super) async fn one_stopped(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let left = Server::start(stage.plan.server("left")?).await?;
    let right = Server::start(stage.plan.server("right")?).await?;
    let ours = stage.peer_on(&left, left.url(), Kind::Ours, "ours").await?;
    let theirs = stage.peer_on(&right, right.url(), kind, "theirs").await?;
    let newcomer = stage.peer_on(&right, right.url(), Kind::Ours, "newcomer").await?;
    let room = stage::create(&left, &ours).await?;
    bring(&left, &right, &room, &ours, &theirs).await?;
    stage::ready(&room, &[&ours, &theirs]).await?;
    stage.talk(&room, &[&ours, &theirs, &ours]).await?;
    bring(&left, &right, &room, &ours, &newcomer).await?;

    right.down().await?;
    let refused = ours
        .say(&room, &stage.text("strict"))
        .await
        .err()
        .context("strict sent it")?;
    let refused = format!("{refused:#}");
    ensure!(
        refused.contains(&newcomer.user),
        "strict does not name {}: {refused}",
        newcomer.user
    );
    let code = refused
        .rsplit('[')
        .next()
        .unwrap_or_default()
        .trim_end_matches(']')
        .to_owned();
    let text = stage.text("best effort");
    let content = json!({"msgtype": "m.text", "body": text});
    let command = json!({
        "do": "send", "room": room, "type": "m.room.message", "content": content, "recipients": "best_effort",
    });
    let sent = ours.ask(command).await?;
    let event = crate::peer::event(&sent)?;
    let left_out = json!([sent["without"], sent["unknown"]]).to_string();
    ensure!(
        left_out.contains(&newcomer.user),
        "the receipt does not name {}: {sent}",
        newcomer.user
    );

    right.up().await?;
    let after = arrives(stage, &ours, &[&theirs, &newcomer], &room).await?;
    // The event and its key waited on our homeserver.
    let read = theirs.reads(&event).await?;
    ensure!(
        read["content"]["body"] == text.as_str(),
        "{} read something else",
        theirs.name()
    );
    let unreadable = newcomer.ledger.cannot_read(&event).await;
    unreadable.with_context(|| format!("{} was not shown what it was left out of", newcomer.name()))?;
    stage.only_ciphertext(&left)?;
    stage.only_ciphertext(&right)?;
    Ok(format!(
        "strict said {code}; best effort arrived with its key; strict again {after}"
    ))
}

/// Strict sends again once the other server answers, which its homeserver asks again after a while.
async fn arrives(stage: &Stage<'_>, ours: &Peer, others: &[&Peer], room: &str) -> Result<String> {
    let mut last = Value::Null;
    for attempt in 1..=60 {
        match ours.say(room, &stage.text("strict again")).await {
            Ok(event) => {
                for other in others {
                    other.reads(&event).await?;
                }
                return Ok(format!("after {attempt} attempt(s)"));
            }
            Err(error) => last = json!(format!("{error:#}")),
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    anyhow::bail!("strict never sent again: {last}")
}
