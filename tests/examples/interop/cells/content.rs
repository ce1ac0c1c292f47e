//! Cell 7: files of each kind; edits, reactions, threads, replies, redactions.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    peer::{Kind, Peer, event},
    server::encoded,
    stage::Stage,
};

const KINDS: [(&str, &str); 4] = [
    ("m.file", "application/pdf"),
    ("m.image", "image/png"),
    ("m.audio", "audio/ogg"),
    ("m.video", "video/mp4"),
];

pub(super) async fn files(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    let directory = stage.directory();
    std::fs::create_dir_all(&directory)?;
    let mut count = 0;
    for (sender, receiver) in [(&ours, &theirs), (&theirs, &ours)] {
        for (bytes, (msgtype, mime)) in [0, 1, 70_000, 300_001].into_iter().zip(KINDS) {
            let mut plain = stage.text("in a file ").into_bytes();
            plain.resize(plain.len() + bytes, b'x');
            let path = directory.join(format!("sent{count}"));
            std::fs::write(&path, &plain)?;
            let command = json!({"do": "send_file", "room": room, "path": path, "msgtype": msgtype, "mime": mime});
            let read = receiver.reads(&event(&sender.ask(command).await?)?).await?;
            let content = &read["content"];
            ensure!(
                content["msgtype"] == msgtype,
                "{} got {}",
                receiver.name(),
                content["msgtype"]
            );
            ensure!(
                content["info"]["mimetype"] == mime,
                "{} got {}",
                receiver.name(),
                content["info"]
            );
            let path = directory.join(format!("got{count}"));
            receiver
                .ask(json!({"do": "fetch_file", "content": content, "path": path}))
                .await?;
            ensure!(
                std::fs::read(&path)? == plain,
                "{} got another {msgtype}",
                receiver.name()
            );
            count += 1;
        }
    }
    Ok(format!("{count} files, each the same after the way"))
}

/// What relates to an earlier event, and whether its relation may be inside the ciphertext alone.
fn relations(first: &str, text: &str) -> [(&'static str, &'static str, Value); 4] {
    let reply = json!({"m.in_reply_to": {"event_id": first}});
    let thread = json!({"rel_type": "m.thread", "event_id": first, "is_falling_back": true, "m.in_reply_to": {"event_id": first}});
    let edit = json!({"rel_type": "m.replace", "event_id": first});
    let reaction = json!({"rel_type": "m.annotation", "event_id": first, "key": "👍"});
    [
        (
            "reply",
            "m.room.message",
            json!({"msgtype": "m.text", "body": text, "m.relates_to": reply}),
        ),
        (
            "thread",
            "m.room.message",
            json!({"msgtype": "m.text", "body": text, "m.relates_to": thread}),
        ),
        (
            "edit",
            "m.room.message",
            json!({"msgtype": "m.text", "body": format!("* {text}"), "m.relates_to": edit,
                "m.new_content": {"msgtype": "m.text", "body": text}}),
        ),
        ("reaction", "m.reaction", json!({"m.relates_to": reaction})),
    ]
}

pub(super) async fn related(stage: &Stage<'_>, kind: Kind) -> Result<String> {
    let (ours, theirs) = (stage.peer(Kind::Ours, "ours").await?, stage.peer(kind, "theirs").await?);
    let room = stage.room(&ours, &[&theirs]).await?;
    let mut plain = Vec::new();
    for (sender, receiver) in [(&ours, &theirs), (&theirs, &ours)] {
        let first = sender.say(&room, &stage.text("first")).await?;
        receiver.reads(&first).await?;
        for (what, event_type, content) in relations(&first, &stage.text("second")) {
            let sent = sender.send(&room, event_type, content.clone()).await?;
            let read = receiver.reads(&sent).await?;
            ensure!(
                read["type"] == event_type,
                "{} got a {what} as {}",
                receiver.name(),
                read["type"]
            );
            let wanted = &content["m.relates_to"];
            let same = read["relates"] == *wanted || read["content"]["m.relates_to"] == *wanted;
            ensure!(
                same,
                "{} got a {what} that relates to {}",
                receiver.name(),
                read["relates"]
            );
            for part in ["body", "m.new_content"] {
                let (got, wanted) = (&read["content"][part], &content[part]);
                ensure!(got == wanted, "{} got a {what} with another {part}", receiver.name());
            }
            if read["encrypted"] != true {
                ensure!(what == "reaction", "a {what} was not encrypted");
                plain.push(sender.kind());
            }
        }
        redacted(stage, &room, sender, receiver, &first).await?;
    }
    let plain: Vec<String> = plain.iter().map(ToString::to_string).collect();
    Ok(match plain.is_empty() {
        true => "5 kinds each way, reactions encrypted".to_owned(),
        false => format!("5 kinds each way; reactions are plaintext by {}", plain.join(" and ")),
    })
}

/// A redaction is no secret; it arrives, and the event is empty afterwards.
async fn redacted(stage: &Stage<'_>, room: &str, sender: &Peer, receiver: &Peer, first: &str) -> Result<()> {
    let server = &stage.server;
    let path = format!(
        "/rooms/{}/redact/{}/{}",
        encoded(room),
        encoded(first),
        server.transaction()
    );
    let answer = server
        .call("PUT", &path, Some(&sender.token().await), Some(json!({})))
        .await?;
    let redaction = answer["event_id"].as_str().context("no event id")?;
    let read = receiver.reads(redaction).await?;
    ensure!(
        read["type"] == "m.room.redaction",
        "{} got {}",
        receiver.name(),
        read["type"]
    );
    let path = format!("/rooms/{}/event/{}", encoded(room), encoded(first));
    let event = server.call("GET", &path, Some(&receiver.token().await), None).await?;
    ensure!(
        event["content"].get("ciphertext").is_none(),
        "the event was not redacted"
    );
    Ok(())
}
