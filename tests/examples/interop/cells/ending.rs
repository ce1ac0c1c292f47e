//! Cell 8: logins that end on the homeserver.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    peer::{Kind, Peer},
    server::Server,
    stage::{self, PASSWORD, Stage},
};

/// What our device says when it may not receive any more.
async fn end(ours: &Peer) -> Result<Value> {
    let told = ours.ledger.told("receive").await;
    told.with_context(|| format!("{} was told nothing", ours.name()))
}

fn local(peer: &Peer) -> &str {
    let name = peer.user.trim_start_matches('@');
    name.split(':').next().unwrap_or(name)
}

pub(super) async fn deleted(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let server = &stage.server;
    let (ours, theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    stage.talk(&room, &[&ours, &theirs]).await?;
    let identifier = json!({"type": "m.id.user", "user": ours.user});
    let login = json!({"type": "m.login.password", "identifier": identifier, "password": PASSWORD});
    let other = server.call("POST", "/login", None, Some(login.clone())).await?;
    let token = other["access_token"].as_str().context("no token")?;
    let delete = json!({"devices": [ours.device], "auth": login});
    server
        .call("POST", "/delete_devices", Some(token), Some(delete))
        .await?;
    let told = end(&ours).await?;
    ensure!(told["code"] == "logged_out", "ours said {told}");
    let refused = ours
        .say(&room, &stage.text("from a device that is gone"))
        .await
        .err()
        .context("it was sent")?;
    ensure!(
        format!("{refused:#}").contains("[logged_out]"),
        "the send said {refused:#}"
    );
    Ok("receiving and sending say logged_out".to_owned())
}

pub(super) async fn soft(stage: &Stage<'_>, _: Kind) -> Result<String> {
    let server = Server::start(stage.plan.server("ending")?).await?;
    let mut ours = stage.peer_on(&server, server.url(), Kind::Ours, "ours").await?;
    let other = stage.peer_on(&server, server.url(), Kind::Ours, "other").await?;
    let room = stage::room_on(&server, &ours, &[&other]).await?;
    let first = ours.say(&room, &stage.text("with the first token")).await?;
    other.reads(&first).await?;
    let renewed = renewed(&ours).await?;
    let second = ours.say(&room, &stage.text("with a renewed token")).await?;
    other.reads(&second).await?;
    let told = end(&ours).await?;
    ensure!(told["code"] == "soft_logged_out", "ours said {told}");
    ours.close().await?;
    // The same command makes the login again: the same device.
    let user = local(&ours).to_owned();
    ours.log_in_again(&user, PASSWORD).await?;
    let other = stage.peer_on(&server, server.url(), Kind::Ours, "another").await?;
    let room = stage::room_on(&server, &ours, &[&other]).await?;
    let third = ours.say(&room, &stage.text("after the second login")).await?;
    other.reads(&third).await?;
    Ok(format!(
        "renewed {renewed} token(s), told soft_logged_out, logged in again as the same device"
    ))
}

/// Wait until it has another access token.
async fn renewed(ours: &Peer) -> Result<usize> {
    let before = ours.token().await;
    for _ in 0..800 {
        if ours.token().await != before {
            return Ok(1);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the token was not renewed")
}
