//! Cell 12: identities, verification, secrets, key backups and shared histories, with a peer that has all of it.

pub(super) mod backup;
mod compare;
pub(super) mod history;
pub(super) mod own;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use self::compare::{Place, code, sas, text_of};
use crate::{
    inexcusable::Inexcusable,
    peer::{Kind, Peer},
    stage::{PASSWORD, Stage},
};

/// Who asks, who starts: every order of the two sides.
const ORDERS: [(Side, Side); 4] = [
    (Side::Ours, Side::Ours),
    (Side::Ours, Side::Theirs),
    (Side::Theirs, Side::Ours),
    (Side::Theirs, Side::Theirs),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

impl Side {
    const fn of<'p>(self, ours: &'p Peer, theirs: &'p Peer) -> [&'p Peer; 2] {
        match self {
            Self::Ours => [ours, theirs],
            Self::Theirs => [theirs, ours],
        }
    }
}

/// Give the account of a device all of an identity. Returns the recovery key.
async fn set_up(who: &Peer) -> Result<String> {
    let made = who.ask(json!({"do": "identity_setup", "password": PASSWORD})).await?;
    text_of(&made, "recovery_key")
}

/// A device with an identity, of an account of its own.
async fn with_identity(stage: &Stage<'_>, kind: Kind, name: &str) -> Result<(Peer, String)> {
    let peer = stage.peer(kind, name).await?;
    let key = set_up(&peer).await?;
    Ok((peer, key))
}

/// Another device of an account, which takes the identity's secrets with the recovery key.
async fn recovered(stage: &Stage<'_>, kind: Kind, of: &Peer, key: &str) -> Result<Peer> {
    let device = stage.another_of(kind, of).await?;
    device
        .ask(json!({"do": "identity_recover", "recovery_key": key}))
        .await?;
    Ok(device)
}

/// Ask until the answer is so: what others signed comes with a later sync.
async fn until(who: &Peer, command: Value, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    for _ in 0..80 {
        last = who.ask(command.clone()).await?;
        if wanted(&last) {
            return Ok(last);
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    anyhow::bail!("{} stays at {last} after {}", who.name(), command["do"])
}

/// Each trusts the other's user, and what comes from any of his devices that he has signed.
async fn trust_each_other(stage: &Stage<'_>, ours: &Peer, theirs: &Peer, more: [Option<&Peer>; 2]) -> Result<()> {
    let [more_of_ours, more_of_theirs] = more;
    let mut all = vec![theirs];
    all.extend(more_of_theirs.into_iter().chain(more_of_ours));
    let room = stage.room(ours, &[theirs]).await?;
    all.push(ours);
    stage.ready(&room, &all).await?;
    let whole = |user: &Peer| json!({"do": "standing", "user": user.user});
    until(ours, whole(theirs), |seen| seen["user"] == true).await?;
    for device in std::iter::once(ours).chain(more_of_ours) {
        let one = json!({"do": "standing", "user": device.user, "device": device.device});
        until(theirs, one, |seen| {
            seen["user"] == true && seen["device"] == true && seen["signed_by_owner"] == true
        })
        .await?;
        let event = device.say(&room, &stage.text("from a device that is trusted")).await?;
        theirs.reads(&event).await?;
        let shield = theirs
            .ask(json!({"do": "shield", "room": room, "event": event}))
            .await?;
        ensure!(shield["colour"] == "none", "{} shows {shield}", theirs.name());
    }
    for device in std::iter::once(theirs).chain(more_of_theirs) {
        let event = device.say(&room, &stage.text("from a device that is trusted")).await?;
        let read = ours.reads(&event).await?;
        ensure!(
            read["encryption"]["trust"] == "verified",
            "ours says {}",
            read["encryption"]
        );
    }
    Ok(())
}

/// Before anything is compared, nobody trusts anybody.
async fn strangers(stage: &Stage<'_>, ours: &Peer, theirs: &Peer) -> Result<String> {
    let room = stage.room(ours, &[theirs]).await?;
    // Its first message makes ours ask who that is.
    let first = theirs.say(&room, &stage.text("of a stranger")).await?;
    ours.reads(&first).await?;
    ours.ask(json!({"do": "ready", "room": room})).await?;
    let event = theirs.say(&room, &stage.text("of a stranger")).await?;
    let read = ours.reads(&event).await?;
    ensure!(
        read["encryption"]["trust"] == "cross_signed",
        "ours says {}",
        read["encryption"]
    );
    let one = json!({"do": "standing", "user": ours.user, "device": ours.device});
    let seen = until(theirs, one, |seen| seen["signed_by_owner"] == true).await?;
    ensure!(seen["user"] == false && seen["device"] == false, "theirs says {seen}");
    Ok(room)
}

/// Emoji and decimals with another user, to one of his devices, in the four orders.
pub(super) async fn sas_with_devices(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, _) = with_identity(stage, Kind::Ours, "ours").await?;
    let mut offered = Value::Null;
    for (asks, starts) in ORDERS {
        let (theirs, _) = with_identity(stage, kind, "theirs").await?;
        strangers(stage, &ours, &theirs).await?;
        let seen = sas(asks.of(&ours, &theirs), starts.of(&ours, &theirs)[0], Place::Device).await?;
        offered = if seen["offered"].is_array() {
            seen["offered"].clone()
        } else {
            offered
        };
        trust_each_other(stage, &ours, &theirs, [None, None]).await?;
    }
    Ok(format!("each trusts the other in four orders; theirs offers {offered}"))
}

/// The same in a room: what ours says in it is encrypted, whatever theirs does.
pub(super) async fn sas_in_rooms(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, _) = with_identity(stage, Kind::Ours, "ours").await?;
    let mut plain = 0;
    for (asks, starts) in ORDERS {
        let (theirs, _) = with_identity(stage, kind, "theirs").await?;
        let room = strangers(stage, &ours, &theirs).await?;
        sas(
            asks.of(&ours, &theirs),
            starts.of(&ours, &theirs)[0],
            Place::Room(&room),
        )
        .await?;
        for event in stage.server.history(&room, &ours.token().await).await? {
            let is_message = event["type"] == "m.room.message";
            let is_step = event["type"]
                .as_str()
                .is_some_and(|kind| kind.starts_with("m.key.verification"));
            let is_plain = is_message || is_step;
            if is_plain && event["sender"] != theirs.user.as_str() {
                let step = format!("ours did not encrypt a step: {}", event["type"]);
                return Err(Inexcusable(step).into());
            }
            plain += usize::from(is_plain);
        }
        trust_each_other(stage, &ours, &theirs, [None, None]).await?;
    }
    Ok(format!(
        "each trusts the other in four orders; ours encrypts its steps, {plain} of theirs were plaintext"
    ))
}

/// What a verification is for: the devices that nobody compared are trusted, since their owner signed them.
pub(super) async fn cross_signing(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, key) = with_identity(stage, Kind::Ours, "ours").await?;
    let more_of_ours = recovered(stage, Kind::Ours, &ours, &key).await?;
    let (theirs, key) = with_identity(stage, kind, "theirs").await?;
    let more_of_theirs = recovered(stage, kind, &theirs, &key).await?;
    strangers(stage, &ours, &theirs).await?;
    sas([&ours, &theirs], &theirs, Place::Device).await?;
    trust_each_other(stage, &ours, &theirs, [Some(&more_of_ours), Some(&more_of_theirs)]).await?;
    Ok("a second device of each, which nobody compared".to_owned())
}

/// The two sides do not show the same, says one of them.
pub(super) async fn mismatch(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    for says_so in [Side::Ours, Side::Theirs] {
        let (ours, _) = with_identity(stage, Kind::Ours, "ours").await?;
        let (theirs, _) = with_identity(stage, kind, "theirs").await?;
        strangers(stage, &ours, &theirs).await?;
        let both = says_so.of(&ours, &theirs);
        let flow = compare::compared(both, both[1], Place::Device).await?.0;
        let [first, second] = both;
        first.ask(compare::step("verify_mismatch", &flow, second)).await?;
        for (who, with) in [(first, second), (second, first)] {
            let told = who.ask(compare::step("verify_cancelled", &flow, with)).await?;
            ensure!(told["code"] == "m.mismatched_sas", "{} was told {told}", who.name());
        }
        strangers(stage, &ours, &theirs).await?;
    }
    Ok("each way: both are told m.mismatched_sas, and nobody trusts anybody".to_owned())
}

/// Codes with another user: each shows one, and the other scans it.
pub(super) async fn codes(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, _) = with_identity(stage, Kind::Ours, "ours").await?;
    for shows in [Side::Ours, Side::Theirs] {
        for asks in [Side::Ours, Side::Theirs] {
            let (theirs, _) = with_identity(stage, kind, "theirs").await?;
            strangers(stage, &ours, &theirs).await?;
            code(asks.of(&ours, &theirs), shows.of(&ours, &theirs), Place::Device).await?;
            trust_each_other(stage, &ours, &theirs, [None, None]).await?;
        }
    }
    Ok("each shows and each scans".to_owned())
}
