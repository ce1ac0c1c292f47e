//! History shared on invitation (MSC4268): given by one implementation, taken by another, and not given where it may not be.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::with_identity;
use crate::{
    peer::{Kind, Peer},
    server::encoded,
    stage::{self, Stage},
};

/// What is told of a key that may not be given.
const WITHHELD: &str = "m.history_not_shared";
/// What matrix-js-sdk says of it: it has a code for every key that is withheld.
const WITHHELD_IN_JS: &str = "MEGOLM_KEY_WITHHELD";

/// A room with two in it, one of whom may give its history.
struct Past {
    giver: Peer,
    other: Peer,
    room: String,
}

impl Past {
    /// The other one is of the newcomers' implementation, so that its keys are given by somebody else's.
    async fn new(stage: &Stage<'_>, gives: Kind, takes: Kind, visibility: &str) -> Result<Self> {
        let (giver, _) = with_identity(stage, gives, "giver").await?;
        let other = stage.peer(takes, "other").await?;
        let room = stage.room(&giver, &[&other]).await?;
        let past = Self { giver, other, room };
        past.show(stage, visibility).await?;
        Ok(past)
    }

    /// Who may see the history from now on, and both know it.
    async fn show(&self, stage: &Stage<'_>, visibility: &str) -> Result<()> {
        let path = format!("/rooms/{}/state/m.room.history_visibility", encoded(&self.room));
        let content = json!({"history_visibility": visibility});
        let token = self.giver.token().await;
        stage.server.call("PUT", &path, Some(&token), Some(content)).await?;
        for member in [&self.giver, &self.other] {
            let known = json!({"do": "ready", "room": self.room, "visibility": visibility});
            member.ask(known).await?;
        }
        Ok(())
    }

    /// Two things of the giver under two keys, and one of the other. Returns events and texts.
    async fn say(&self, stage: &Stage<'_>) -> Result<Vec<(String, String)>> {
        let mut said = Vec::new();
        for (speaker, listener) in [
            (&self.giver, &self.other),
            (&self.giver, &self.other),
            (&self.other, &self.giver),
        ] {
            speaker.ask(json!({"do": "rotate", "room": self.room})).await?;
            let words = stage.text("before anybody came");
            let event = speaker.say(&self.room, &words).await?;
            listener.reads(&event).await?;
            said.push((event, words));
        }
        Ok(said)
    }

    /// The ciphertext of an event once more, as an event that newcomers are shown.
    async fn repeated(&self, stage: &Stage<'_>, event: &str) -> Result<String> {
        let room = encoded(&self.room);
        let path = format!("/rooms/{room}/event/{}", encoded(event));
        let token = self.giver.token().await;
        let mut said = stage.server.call("GET", &path, Some(&token), None).await?;
        ensure!(said["content"]["ciphertext"].is_string(), "{event} is not encrypted");
        let is_givers = said["sender"] == self.giver.user.as_str();
        let speaker = if is_givers { &self.giver } else { &self.other };
        let path = format!("/rooms/{room}/send/m.room.encrypted/{}", stage.server.transaction());
        let (token, content) = (speaker.token().await, said["content"].take());
        let sent = stage.server.call("PUT", &path, Some(&token), Some(content)).await?;
        super::text_of(&sent, "event_id")
    }

    async fn invited(&self, stage: &Stage<'_>) -> Result<usize> {
        let path = format!("/rooms/{}/members?membership=invite", encoded(&self.room));
        let members = stage
            .server
            .call("GET", &path, Some(&self.giver.token().await), None)
            .await?;
        Ok(members["chunk"].as_array().context("no members")?.len())
    }

    /// What the giver does about a newcomer's history: `invite_with_history`, `share_history`.
    async fn give(&self, what: &str, newcomer: &Peer) -> Result<Value> {
        let command = json!({"do": what, "room": self.room, "user": newcomer.user});
        self.giver.ask(command).await
    }

    async fn joined_by(&self, newcomer: &Peer) -> Result<()> {
        newcomer.ask(json!({"do": "join", "room": self.room})).await.map(drop)
    }

    /// It is shown this event, and cannot read it. Returns why.
    async fn kept_from(&self, newcomer: &Peer, event: &str) -> Result<Value> {
        let unreadable = newcomer.ledger.cannot_read(event).await;
        newcomer.has_not_read(event)?;
        let unreadable = unreadable.with_context(|| format!("{} was not shown {event}", newcomer.name()))?;
        Ok(unreadable["reason"].clone())
    }
}

/// It reads all of it, with the texts that were said. Returns what it says about whose keys these are.
async fn reads_all(newcomer: &Peer, room: &str, said: &[(String, String)]) -> Result<String> {
    let mut all = Vec::new();
    for (event, words) in said {
        let read = newcomer.reads(event).await?;
        let name = newcomer.name();
        ensure!(read["content"]["body"] == words.as_str(), "{name} read something else");
        ensure!(read["encrypted"] == true, "{name} read plaintext");
        let trust = if newcomer.kind() == Kind::Ours {
            let trust = &read["encryption"]["trust"];
            ensure!(trust == "imported", "ours trusts a key that it was given: {trust}");
            "imported".to_owned()
        } else {
            let shield = newcomer
                .ask(json!({"do": "shield", "room": room, "event": event}))
                .await?;
            ensure!(shield["colour"] == "grey", "{name} shows {shield}");
            "a grey shield".to_owned()
        };
        all.push(trust);
    }
    all.dedup();
    Ok(all.join(", "))
}

/// Our device says what it was given and by whom.
async fn says_so(newcomer: &Peer, giver: &Peer, keys: Option<usize>, withheld: usize) -> Result<()> {
    if newcomer.kind() != Kind::Ours {
        return Ok(());
    }
    let told = newcomer.ledger.told("history_received").await;
    let told = told.context("ours does not say that it was given a history")?;
    let as_given = told["from"] == giver.user.as_str() && told["unusable"] == 0 && told["withheld"] == withheld;
    let as_many = keys.is_none_or(|keys| told["room_keys"] == keys);
    ensure!(as_given && as_many, "ours says {told}");
    Ok(())
}

/// Both directions: who is invited with the history reads it, and so does who is given it after the join.
pub(in super::super) async fn shared(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let mut seen = Vec::new();
    for (gives, takes) in [(Kind::Ours, kind), (kind, Kind::Ours)] {
        let direction = || format!("{gives} gives, {takes} takes");
        seen.push(shared_by(stage, gives, takes).await.with_context(direction)?);
    }
    Ok(seen.join("; "))
}

async fn shared_by(stage: &Stage<'_>, gives: Kind, takes: Kind) -> Result<String> {
    let past = Past::new(stage, gives, takes, "shared").await?;
    let said = past.say(stage).await?;
    let (invited, _) = with_identity(stage, takes, "invited").await?;
    let given = past.give("invite_with_history", &invited).await?;
    if gives == Kind::Ours {
        let expected = json!({"room_keys": said.len(), "withheld": 0, "devices": 1});
        ensure!(given == expected, "ours says that it gave {given}");
    }
    past.joined_by(&invited).await?;
    let trust = reads_all(&invited, &past.room, &said).await?;
    says_so(&invited, &past.giver, Some(said.len()), 0).await?;
    stage.ready(&past.room, &[&past.giver, &past.other, &invited]).await?;
    stage.talk(&past.room, &[&past.giver, &past.other, &invited]).await?;
    // Its room is joined already when the keys come.
    let (later, _) = with_identity(stage, takes, "later").await?;
    stage::membership(&stage.server, "invite", &past.room, &past.giver, &later).await?;
    past.joined_by(&later).await?;
    for (event, _) in &said {
        past.kept_from(&later, event).await?;
    }
    past.give("share_history", &later).await?;
    reads_all(&later, &past.room, &said).await?;
    says_so(&later, &past.giver, None, 0).await?;
    Ok(format!(
        "{takes} reads {} keys' messages from before it, invited and given later ({trust})",
        said.len()
    ))
}

/// Both directions: a key of a time when newcomers were not to read is not given, then and later.
pub(in super::super) async fn hidden(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let mut seen = Vec::new();
    for (gives, takes) in [(Kind::Ours, kind), (kind, Kind::Ours)] {
        let direction = || format!("{gives} gives, {takes} takes");
        seen.push(hidden_by(stage, gives, takes).await.with_context(direction)?);
    }
    Ok(seen.join("; "))
}

async fn hidden_by(stage: &Stage<'_>, gives: Kind, takes: Kind) -> Result<String> {
    let past = Past::new(stage, gives, takes, "joined").await?;
    let said = past.say(stage).await?;
    let (first, _) = with_identity(stage, takes, "first").await?;
    let asked = past.give("invite_with_history", &first).await;
    if gives == Kind::Ours {
        let refused = asked.err().map(|error| error.to_string()).unwrap_or_default();
        let is_said = refused.contains("[history_not_for_newcomers]");
        ensure!(is_said, "ours gives what is not for newcomers: {refused}");
        ensure!(past.invited(stage).await? == 0, "ours invited somebody all the same");
        stage::membership(&stage.server, "invite", &past.room, &past.giver, &first).await?;
    } else {
        asked?;
    }
    past.joined_by(&first).await?;
    // The homeserver shows no newcomer the events themselves.
    let mut again = Vec::new();
    for (event, _) in &said {
        again.push(past.repeated(stage, event).await?);
    }
    for event in &again {
        past.kept_from(&first, event).await?;
    }
    past.show(stage, "shared").await?;
    let words = stage.text("for newcomers");
    let event = past.giver.say(&past.room, &words).await?;
    past.other.reads(&event).await?;
    let (second, _) = with_identity(stage, takes, "second").await?;
    let given = past.give("invite_with_history", &second).await?;
    if gives == Kind::Ours {
        let expected = json!({"room_keys": 1, "withheld": said.len(), "devices": 1});
        ensure!(given == expected, "ours says that it gave {given}");
    }
    past.joined_by(&second).await?;
    reads_all(&second, &past.room, &[(event, words)]).await?;
    says_so(&second, &past.giver, Some(1), said.len()).await?;
    for (event, _) in &said {
        let again = past.repeated(stage, event).await?;
        let reason = past.kept_from(&second, &again).await?;
        let is_named = match takes {
            Kind::Ours => reason["withheld"] == WITHHELD,
            _ => reason == WITHHELD_IN_JS,
        };
        ensure!(is_named, "{} says {reason}", second.name());
    }
    // Neither did anything that came since open it.
    for event in &again {
        past.kept_from(&first, event).await?;
    }
    Ok(format!(
        "{takes} reads none of {}, told that they are withheld",
        said.len()
    ))
}
