//! A verification between two devices, step by step.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::peer::{Kind, Peer};

/// Where it happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'r> {
    /// Between two devices.
    Device,
    /// Whoever of our own devices answers.
    Own,
    Room(&'r str),
}

pub(super) fn text_of(answer: &Value, name: &str) -> Result<String> {
    let found = answer[name].as_str();
    found
        .map(str::to_owned)
        .with_context(|| format!("no {name} in {answer}"))
}

/// A step of a verification with somebody.
pub(super) fn step(what: &str, flow: &str, with: &Peer) -> Value {
    json!({"do": what, "flow": flow, "user": with.user})
}

/// One asks, and the other takes part.
async fn asked([asks, other]: [&Peer; 2], place: Place<'_>) -> Result<String> {
    let mut request = json!({"do": "verify_request", "user": other.user});
    match place {
        Place::Device => request["device"] = json!(other.device),
        Place::Own => {}
        Place::Room(room) => request["room"] = json!(room),
    }
    if other.kind() == Kind::Js {
        let asking = json!({"do": "knows", "user": asks.user, "device": asks.device});
        other.ask(asking).await?;
    }
    let flow = text_of(&asks.ask(request).await?, "flow")?;
    other.ask(step("verify_accept", &flow, asks)).await?;
    Ok(flow)
}

/// Both have the same before them. Returns which verification it is, and what each side says.
pub(super) async fn compared(both: [&Peer; 2], starts: &Peer, place: Place<'_>) -> Result<(String, [Value; 2])> {
    let [first, second] = both;
    let flow = asked(both, place).await?;
    let other = if starts.device == first.device { second } else { first };
    starts.ask(step("verify_start", &flow, other)).await?;
    let (one, two) = tokio::try_join!(
        first.ask(step("verify_compare", &flow, second)),
        second.ask(step("verify_compare", &flow, first)),
    )?;
    for what in ["decimals", "emoji"] {
        ensure!(one[what].is_array(), "{} shows no {what}: {one}", first.name());
        ensure!(one[what] == two[what], "{what} differ: {one} and {two}");
    }
    Ok((flow, [one, two]))
}

/// Both compare emoji and decimals, and say that they are the same. Returns what was seen.
pub(super) async fn sas(both: [&Peer; 2], starts: &Peer, place: Place<'_>) -> Result<Value> {
    let [first, second] = both;
    let order = || format!("{} asks, {} starts", first.kind(), starts.kind());
    let (flow, shown) = compared(both, starts, place).await.with_context(order)?;
    tokio::try_join!(
        first.ask(step("verify_confirm", &flow, second)),
        second.ask(step("verify_confirm", &flow, first)),
    )
    .with_context(order)?;
    let with_offer = shown.into_iter().find(|side| side["offered"].is_array());
    Ok(with_offer.unwrap_or_default())
}

/// One shows a code, the other scans it.
pub(super) async fn code(both: [&Peer; 2], [shows, scans]: [&Peer; 2], place: Place<'_>) -> Result<()> {
    let order = || format!("{} asks, {} shows", both[0].kind(), shows.kind());
    let flow = asked(both, place).await.with_context(order)?;
    let shown = shows
        .ask(step("verify_show_qr", &flow, scans))
        .await
        .with_context(order)?;
    let mut scan = step("verify_scan", &flow, shows);
    scan["code"] = shown["code"].clone();
    scans.ask(scan).await.with_context(order)?;
    tokio::try_join!(
        shows.ask(step("verify_scanned", &flow, scans)),
        scans.ask(step("verify_done", &flow, shows)),
    )
    .with_context(order)?;
    Ok(())
}
