//! Cell 11: files of room keys, out of one implementation and into another.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::contact::{Mx, text};
use crate::{
    peer::{Kind, Peer},
    stage::{self, Stage},
};

/// What protects the files. matrix-nio 0.26.0 takes the bytes of Latin-1, which nobody else does.
const fn passphrase(kind: Kind) -> &'static str {
    match kind {
        Kind::Nio => "keys that fit everywhere",
        Kind::Js | Kind::Ours => "Schlüssel, die überall passen",
    }
}

/// A passphrase as `mx` takes it.
fn in_a_file(kind: Kind, directory: &Path) -> Result<String> {
    let file = directory.join("passphrase");
    std::fs::write(&file, passphrase(kind))?;
    Ok(file.display().to_string())
}

/// EX-06: what was said before somebody came is read with the keys of a file, and only with them.
pub(super) async fn ex_06_each_way(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let of_theirs = into_ours(stage, kind).await?;
    let of_ours = into_theirs(stage, kind).await?;
    Ok(format!("{of_theirs}; {of_ours}"))
}

/// Two messages each from both, which know each other.
pub(super) async fn old_messages(stage: &Stage<'_>, room: &str, both: [&Peer; 2]) -> Result<Vec<(String, String)>> {
    let mut said = Vec::new();
    for speaker in both.into_iter().chain(both) {
        let words = stage.text("before anybody came");
        let event = speaker.say(room, &words).await?;
        for listener in both.iter().filter(|one| one.device != speaker.device) {
            listener.reads(&event).await?;
        }
        said.push((event, words));
    }
    Ok(said)
}

/// Their file, into `mx`.
async fn into_ours(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (theirs, other) = (
        stage.peer(kind, "theirs").await?,
        stage.peer(Kind::Ours, "other").await?,
    );
    let room = stage.room(&theirs, &[&other]).await?;
    let said = old_messages(stage, &room, [&theirs, &other]).await?;
    let mx = Mx::new(stage)?;
    let user = stage.user(&stage.server, "mx").await?;
    mx.run(&["login", "--homeserver", stage.server.url(), "--user", &user])
        .await?;
    let body = json!({"user_id": text(&mx.run(&["whoami"]).await?, "user_id")?});
    let invite = format!("/rooms/{}/invite", crate::server::encoded(&room));
    stage
        .server
        .call("POST", &invite, Some(&theirs.token().await), Some(body))
        .await?;
    mx.run(&["listen", "--once"]).await?;
    mx.run(&["room", "join", &room]).await?;
    let mut before = Vec::new();
    for _ in 0..3 {
        before.extend(mx.run(&["listen", "--once"]).await?);
    }
    for (event, words) in &said {
        ensure!(
            find(&before, event).is_none_or(|line| line["content"]["body"] != words.as_str()),
            "mx read {event} without a key"
        );
    }
    let file = theirs.directory.join("keys.txt");
    theirs
        .ask(json!({"do": "export_keys", "path": file, "passphrase": passphrase(kind)}))
        .await?;
    let words = in_a_file(kind, &theirs.directory)?;
    let path = file.display().to_string();
    let taken = mx.run(&["keys", "import", &path, "--passphrase-file", &words]).await?;
    let after = mx.run(&["listen", "--once"]).await?;
    for (event, words) in &said {
        let read = find(&after, event).with_context(|| format!("mx did not read {event} after the import"))?;
        ensure!(
            read["content"]["body"] == words.as_str(),
            "mx read something else: {read}"
        );
        ensure!(
            read["encryption"]["trust"] == "imported",
            "mx trusts an imported key: {read}"
        );
    }
    let count = taken.first().map(|line| line["imported"].clone()).unwrap_or_default();
    Ok(format!("mx read {} with {count} keys of {kind}'s file", said.len()))
}

pub(super) fn find<'l>(lines: &'l [Value], event: &str) -> Option<&'l Value> {
    lines.iter().find(|line| line["event_id"] == event)
}

/// A file of `mx`, into theirs.
async fn into_theirs(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let mx = Mx::new(stage)?;
    let user = stage.user(&stage.server, "mx").await?;
    mx.run(&["login", "--homeserver", stage.server.url(), "--user", &user])
        .await?;
    let other = stage.peer(kind, "other").await?;
    let room = text(&mx.run(&["room", "create", "--invite", &other.user]).await?, "room_id")?;
    stage::go(&stage.server, "join", &room, &other).await?;
    let device = text(&mx.run(&["whoami"]).await?, "device_id")?;
    let user = text(&mx.run(&["whoami"]).await?, "user_id")?;
    other
        .ask(json!({"do": "ready", "room": room, "devices": [[user, device]]}))
        .await?;
    let words = stage.text("of mx, before anybody came");
    let of_mx = text(&mx.run(&["send", &room, &words]).await?, "event_id")?;
    other.reads(&of_mx).await?;
    let answer = stage.text("an answer, before anybody came");
    let of_other = other.say(&room, &answer).await?;
    heard(&mx, &of_other).await?;

    let late = stage.peer(kind, "late").await?;
    stage::membership(&stage.server, "invite", &room, &other, &late).await?;
    stage::go(&stage.server, "join", &room, &late).await?;
    let said = [(of_mx, words), (of_other, answer)];
    for (event, _) in &said {
        let unreadable = late.ledger.cannot_read(event).await;
        unreadable.with_context(|| format!("{} was not shown {event}", late.name()))?;
        late.has_not_read(event)?;
    }
    let file = late.directory.join("keys.txt").display().to_string();
    let words = in_a_file(kind, &late.directory)?;
    mx.run(&["keys", "export", &file, "--passphrase-file", &words]).await?;
    late.ask(json!({"do": "import_keys", "path": file, "passphrase": passphrase(kind)}))
        .await?;
    for (event, words) in &said {
        let read = late.reads(event).await?;
        ensure!(
            read["content"]["body"] == words.as_str(),
            "{} read something else",
            late.name()
        );
    }
    Ok(format!("{kind} read {} with mx's file", said.len()))
}

/// `mx` has received an event.
async fn heard(mx: &Mx, event: &str) -> Result<()> {
    for _ in 0..20 {
        if find(&mx.run(&["listen", "--once"]).await?, event).is_some() {
            return Ok(());
        }
    }
    anyhow::bail!("mx never received {event}")
}
