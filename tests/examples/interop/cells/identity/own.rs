//! A new device of an account, verified by one that holds the identity: it is given the secrets.

use anyhow::{Context, Result};
use serde_json::json;

use super::{
    ORDERS, Side,
    backup::{Left, leave_behind},
    compare::{Place, code, sas},
    until, with_identity,
};
use crate::{
    peer::{Kind, Peer},
    stage::Stage,
};

/// It holds all secrets, is signed, and reads with the backup's key what was said before it was there.
async fn given_everything(stage: &Stage<'_>, new: &Peer, left: &Left, which: usize) -> Result<()> {
    until(new, json!({"do": "identity_status"}), |status| {
        status["private_keys"] == true && status["cross_signed"] == true && status["backup_key"] == true
    })
    .await?;
    new.ask(json!({"do": "restore"})).await?;
    left.read_by(stage, new, which).await
}

/// An account with a device that holds everything, and what was said in a room before its new devices came.
async fn account(stage: &Stage<'_>, holder: Kind) -> Result<(Peer, Left)> {
    let (holder, _) = with_identity(stage, holder, "account").await?;
    let left = leave_behind(stage, &holder, ORDERS.len()).await?;
    Ok((holder, left))
}

fn other(kind: Kind, holder: Kind) -> Kind {
    if holder == Kind::Ours { kind } else { Kind::Ours }
}

/// In the four orders, with `holder` holding the identity.
async fn in_four_orders(stage: &Stage<'_>, kind: Kind, holder: Kind) -> Result<()> {
    let (holding, left) = account(stage, holder).await?;
    let mut devices = Vec::new();
    for (asks, starts) in ORDERS {
        let new = stage.another_of(other(kind, holder), &holding).await?;
        let (ours, theirs) = if holder == Kind::Ours {
            (&holding, &new)
        } else {
            (&new, &holding)
        };
        // The one that is verified asks whoever of its own can; the one that verifies names the device.
        let new_asks = (asks == Side::Ours) != (holder == Kind::Ours);
        let place = if new_asks && devices.is_empty() {
            Place::Own
        } else {
            Place::Device
        };
        sas(asks.of(ours, theirs), starts.of(ours, theirs)[0], place).await?;
        given_everything(stage, &new, &left, devices.len())
            .await
            .with_context(|| format!("{asks:?} asks, {starts:?} starts"))?;
        devices.push(new);
    }
    Ok(())
}

/// Theirs is new, and ours holds the identity.
pub(in super::super) async fn theirs_is_new(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    in_four_orders(stage, kind, Kind::Ours).await?;
    Ok("in four orders it was given the secrets, and read what was before it".to_owned())
}

/// Ours is new, and theirs holds the identity.
pub(in super::super) async fn ours_is_new(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    in_four_orders(stage, kind, kind).await?;
    Ok("in four orders it was given the secrets, and read what was before it".to_owned())
}

/// With a code: each is new, each shows.
pub(in super::super) async fn codes(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    for holder in [Kind::Ours, kind] {
        let (holding, left) = account(stage, holder).await?;
        for (which, new_shows) in [true, false].into_iter().enumerate() {
            let new = stage.another_of(other(kind, holder), &holding).await?;
            let shows = if new_shows { [&new, &holding] } else { [&holding, &new] };
            code([&holding, &new], shows, Place::Device).await?;
            given_everything(stage, &new, &left, which).await?;
        }
    }
    Ok("each was new, and each showed a code".to_owned())
}
