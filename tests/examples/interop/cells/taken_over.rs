//! Cell 14: a device that a peer held goes on with `mx`, out of the store that the peer itself wrote.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    contact::{Mx, text},
    key_files::{find, old_messages},
};
use crate::{
    peer::{Kind, Peer},
    stage::Stage,
};

/// As the driver of matrix-nio names it.
const PICKLE_KEY: &str = "interop";

/// The same device to everybody else: it goes on where the peer has read to, reads what was said meanwhile with a key that the
/// peer was given, and both sides go on.
pub(super) async fn by_mx(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (mut theirs, other) = (
        stage.peer(kind, "theirs").await?,
        stage.peer(Kind::Ours, "other").await?,
    );
    let room = stage.room(&theirs, &[&other]).await?;
    let _read_before = old_messages(stage, &room, [&theirs, &other]).await?;
    let (token, directory) = (theirs.token().await, theirs.directory.clone());
    theirs.close().await?;
    let meanwhile = stage.text("while nobody was there");
    let said = other.say(&room, &meanwhile).await?;

    let mx = Mx::new(stage)?;
    let database = directory.join(format!("{}_{}.db", theirs.user, theirs.device));
    let (token_file, key_file) = (directory.join("token"), directory.join("pickle-key"));
    std::fs::write(&token_file, token)?;
    std::fs::write(&key_file, PICKLE_KEY)?;
    let [database, token_file, key_file] = [database, token_file, key_file].map(|path| path.display().to_string());
    let arguments = [
        "import",
        "nio",
        &database,
        "--homeserver",
        stage.server.url(),
        "--token-file",
        &token_file,
        "--pickle-key-file",
        &key_file,
    ];
    let imported = mx.run(&arguments).await?;
    let who = mx.run(&["whoami"]).await?;
    ensure!(
        (text(&who, "user_id")?, text(&who, "device_id")?) == (theirs.user.clone(), theirs.device.clone()),
        "mx is somebody else: {who:?}"
    );
    let read = mx.run(&["listen", "--once"]).await?;
    let line = find(&read, &said).with_context(|| format!("mx did not read {said}: {read:?}"))?;
    ensure!(
        line["content"]["body"] == meanwhile.as_str(),
        "mx read something else: {line}"
    );
    ensure!(read.len() == 1, "mx read what the peer had read: {read:?}");
    go_on(stage, &mx, &other, &room).await?;
    let came = |what: &str| imported.first().map(|line| line[what].clone()).unwrap_or_default();
    Ok(format!(
        "the same device with {} Olm sessions and {} room keys",
        came("olm_sessions"),
        came("room_keys")
    ))
}

/// Each side makes a new room key, which goes through an Olm session from before.
async fn go_on(stage: &Stage<'_>, mx: &Mx, other: &Peer, room: &str) -> Result<()> {
    let words = stage.text("from the same device");
    let sent = mx.run(&["send", room, &words]).await?;
    let outcome = sent.first().map(|line| line["devices"][0]["outcome"].clone());
    ensure!(outcome == Some(Value::from("reached")), "mx sent {sent:?}");
    let read = other.reads(&text(&sent, "event_id")?).await?;
    ensure!(read["content"]["body"] == words.as_str(), "it read {read}");
    other.ask(json!({"do": "rotate", "room": room})).await?;
    let answer = stage.text("to the same device");
    let event = other.say(room, &answer).await?;
    let lines = mx.run(&["listen", "--once"]).await?;
    let line = find(&lines, &event).with_context(|| format!("mx did not read the answer: {lines:?}"))?;
    ensure!(
        line["content"]["body"] == answer.as_str(),
        "mx read something else: {line}"
    );
    Ok(())
}
