//! Our facade as a peer: the same commands and lines as the drivers of the others.

mod identity;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use mx_e2ee::{
    Attachment, AttachmentKind, Client, DeviceOutcome, Error, Event, Options, ReceivedFile, Recipients, SendReceipt,
    ruma::{OwnedRoomId, OwnedUserId},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::Mutex,
    task::JoinHandle,
};

/// What cannot be read is told after this: a cell waits for it.
const REPORTED_AFTER: Duration = Duration::from_secs(4);

/// A device: its client while it is logged in, and what receives.
#[derive(Default)]
struct Device {
    client: Option<Client>,
    receiving: Option<JoinHandle<()>>,
}

/// One line, whole: several tasks talk.
fn say(line: &Value) {
    println!("{line}");
}

/// Do what stdin says, several things at a time, until it ends.
pub(crate) async fn serve() -> Result<()> {
    let device: Arc<Mutex<Device>> = Arc::default();
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = commands.next_line().await? {
        let command: Value = serde_json::from_str(&line)?;
        let device = Arc::clone(&device);
        // What is about the device itself is done in order; sends overlap.
        if matches!(command["do"].as_str(), Some("login" | "open" | "close")) {
            answer(&command, Box::pin(lifecycle(&device, &command)).await);
        } else {
            tokio::spawn(async move {
                let client = device.lock().await.client.clone();
                let done = match client {
                    Some(client) => Box::pin(run(&client, &command)).await,
                    None => Err(anyhow::anyhow!("not logged in")),
                };
                answer(&command, done);
            });
        }
    }
    Ok(())
}

fn answer(command: &Value, done: Result<Value>) {
    let number = &command["id"];
    match done {
        Ok(ok) => say(&json!({"answer": number, "ok": ok})),
        Err(error) => {
            let code = error.downcast_ref::<Error>().map_or("unexpected", Error::code);
            say(&json!({"answer": number, "error": format!("{error:#} [{code}]"), "code": code}));
        }
    }
}

fn word<'a>(command: &'a Value, name: &str) -> Result<&'a str> {
    command[name]
        .as_str()
        .with_context(|| format!("the command has no {name}"))
}

async fn lifecycle(device: &Mutex<Device>, command: &Value) -> Result<Value> {
    let mut device = device.lock().await;
    if word(command, "do")? == "close" {
        if let Some(receiving) = device.receiving.take() {
            receiving.abort();
            let _aborted = receiving.await;
        }
        device.client.take().context("not logged in")?.close().await?;
        return Ok(json!({}));
    }
    let directory = PathBuf::from(word(command, "directory")?).join("ours");
    let mut options = Options::default();
    options.undecryptable_after = REPORTED_AFTER;
    let builder = Client::builder()
        .options(options)
        .homeserver(word(command, "url")?)
        .directory(&directory);
    let client = if word(command, "do")? == "login" {
        builder
            .login(word(command, "user")?, word(command, "password")?)
            .await?
    } else {
        builder.open().await?
    };
    device.receiving = Some(tokio::spawn(receive(client.clone())));
    let answer = json!({"user": client.user_id(), "device": client.device_id(), "token": token(&client)});
    device.client = Some(client);
    Ok(answer)
}

/// The token that is used now: what a test does beside the facade is done with it.
fn token(client: &Client) -> Option<String> {
    let token = client.homeserver().access_token()?;
    Some(token.expose().to_owned())
}

/// Tell what is received. What was told is acknowledged by the next call.
async fn receive(client: Client) {
    loop {
        match client.receive(Duration::from_secs(1)).await {
            Ok(events) => events.iter().for_each(|event| say(&line(event))),
            Err(error) => {
                say(&json!({"receive": {"code": error.code(), "error": error.to_string()}}));
                if !error.is_transient() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    }
}

fn line(event: &Event) -> Value {
    match event {
        Event::Message(message) => json!({"read": {
            "room": message.room_id, "id": message.event_id, "sender": message.sender, "type": message.event_type,
            "content": message.content, "relates": message.content.get("m.relates_to"),
            "encrypted": message.encryption.is_some(), "encryption": message.encryption,
        }}),
        Event::Undecryptable(event) => json!({"unreadable": {
            "room": event.room_id, "id": event.event_id, "sender": event.sender, "reason": event.reason,
        }}),
        other => {
            let other = json!(other);
            let kind = other["kind"].as_str().unwrap_or_default().to_owned();
            json!({ kind: other })
        }
    }
}

async fn run(client: &Client, command: &Value) -> Result<Value> {
    match word(command, "do")? {
        // What the homeserver knew when this was asked is known here afterwards.
        "ready" => {
            client.sync().await?;
            Ok(json!({}))
        }
        "send" => {
            let content = command["content"].clone();
            let room = room(client, command)?;
            let sent = match command["recipients"].as_str() {
                Some("best_effort") => {
                    room.send_to(word(command, "type")?, content, Recipients::BestEffort)
                        .await?
                }
                _ => room.send(word(command, "type")?, content).await?,
            };
            Ok(receipt(&sent))
        }
        "send_file" => {
            let kind = AttachmentKind::of_msgtype(word(command, "msgtype")?).context("no kind of file")?;
            let attachment = Attachment::from_path(word(command, "path")?)
                .kind(kind)
                .mime(word(command, "mime")?);
            Ok(receipt(&room(client, command)?.send_attachment(attachment).await?))
        }
        "fetch_file" => fetch(client, command).await,
        "rotate" => {
            room(client, command)?.rotate_key().await?;
            Ok(json!({}))
        }
        // An invitation that the homeserver has is known here before.
        "join" => {
            client.sync().await?;
            client.join(word(command, "room")?).await?;
            Ok(json!({}))
        }
        how @ ("invite_with_history" | "share_history") => {
            let (room, user) = (room(client, command)?, OwnedUserId::try_from(word(command, "user")?)?);
            let shared = match how {
                "share_history" => room.share_history(&user).await?,
                _ => room.invite_with_history(&user).await?,
            };
            Ok(json!(shared))
        }
        "token" => Ok(json!({"token": token(client)})),
        "health" => Ok(json!(client.health().await?)),
        _ => Box::pin(identity::run(client, command)).await,
    }
}

fn room(client: &Client, command: &Value) -> Result<mx_e2ee::Room> {
    Ok(client.room(&OwnedRoomId::try_from(word(command, "room")?)?))
}

fn receipt(sent: &SendReceipt) -> Value {
    let without: Vec<_> = sent
        .devices
        .iter()
        .filter(|device| !matches!(device.outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad))
        .collect();
    json!({
        "event": sent.event_id, "readable_by": sent.readable_by(), "new_session": sent.new_session,
        "without": without, "unknown": sent.users_unknown,
    })
}

/// Fetch and decrypt a file, and keep it under this path.
async fn fetch(client: &Client, command: &Value) -> Result<Value> {
    let file = ReceivedFile::of_content(&command["content"])?.context("it is no file")?;
    let bytes = client.files().download(&file, word(command, "path")?).await?;
    Ok(json!({"bytes": bytes}))
}
