//! A device's own process: it reads commands, does them with the facade, and says what went over the wire.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use mx_e2ee::{
    Client, Event,
    ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, api::client::room::get_room_event},
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    process::ANSWER,
    wire::{Line, Recorder},
};

struct Device {
    name: String,
    directory: PathBuf,
    recorder: Arc<Recorder>,
    client: Option<Client>,
}

/// Do what stdin says, until it ends.
pub(crate) async fn serve(name: &str) -> Result<()> {
    let directory = std::env::var_os("MX_DEMO_DIRECTORY")
        .context("a device needs its directory")?
        .into();
    let mut device = Device {
        name: name.to_owned(),
        directory,
        recorder: Arc::new(Recorder::new()?),
        client: None,
    };
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        let command: Value = serde_json::from_str(&command)?;
        let answer = device.run(&command).await;
        device.show_wire();
        println!(
            "{ANSWER}{}",
            answer.unwrap_or_else(|error| json!({"error": format!("{error:#}")}))
        );
    }
    Ok(())
}

fn word<'a>(command: &'a Value, name: &str) -> Result<&'a str> {
    command[name]
        .as_str()
        .with_context(|| format!("the command has no {name}"))
}

impl Device {
    async fn run(&mut self, command: &Value) -> Result<Value> {
        match word(command, "do")? {
            "login" => self.login(command).await,
            "open" => self.open(command).await,
            "create" => {
                let invite = OwnedUserId::try_from(word(command, "invite")?)?;
                let room = self.client()?.create_plaintext_room(Some("demo"), &[invite]).await?;
                room.mark_encrypted().await?;
                Ok(json!({"room": room.id()}))
            }
            "join" => {
                self.client()?.join(word(command, "room")?).await?;
                Ok(json!({}))
            }
            "send" => {
                let room = OwnedRoomId::try_from(word(command, "room")?)?;
                let receipt = self
                    .client()?
                    .room(&room)
                    .send("m.room.message", command["content"].clone())
                    .await?;
                self.show_wire();
                let key = if receipt.new_session {
                    "a new room key"
                } else {
                    "the room key that they have"
                };
                println!(
                    "sent {} with {key}, readable by {} other device(s)",
                    receipt.event_id,
                    receipt.readable_by()
                );
                Ok(json!({"event": receipt.event_id}))
            }
            "read" => self.read(word(command, "body")?).await,
            "event" => {
                let (room, event) = (
                    OwnedRoomId::try_from(word(command, "room")?)?,
                    OwnedEventId::try_from(word(command, "event")?)?,
                );
                let answer = self
                    .client()?
                    .homeserver()
                    .send(get_room_event::v3::Request::new(room, event))
                    .await?;
                Ok(serde_json::from_str(answer.event.json().get())?)
            }
            other => bail!("unknown command {other}"),
        }
    }

    fn client(&self) -> Result<&Client> {
        self.client.as_ref().context("not logged in")
    }

    async fn login(&mut self, command: &Value) -> Result<Value> {
        let client = Client::builder()
            .homeserver(word(command, "url")?)
            .directory(&self.directory)
            .transport(self.recorder.clone())
            .device_name(format!("demo of {}", self.name))
            .login(word(command, "user")?, word(command, "password")?)
            .await?;
        let keys = client.key_status().await?;
        self.show_wire();
        println!(
            "is {} device {}, fingerprint {}",
            keys.user_id, keys.device_id, keys.ed25519
        );
        self.client = Some(client);
        Ok(json!({"user": keys.user_id}))
    }

    async fn open(&mut self, command: &Value) -> Result<Value> {
        let client = Client::builder()
            .homeserver(word(command, "url")?)
            .directory(&self.directory)
            .transport(self.recorder.clone())
            .open()
            .await?;
        println!("is {} device {} again", client.user_id(), client.device_id());
        self.client = Some(client);
        Ok(json!({}))
    }

    /// Receive until the message is there.
    async fn read(&self, wanted: &str) -> Result<Value> {
        for _ in 0..20 {
            for event in self.client()?.receive(Duration::from_secs(5)).await? {
                match event {
                    Event::Message(message) if message.body() == Some(wanted) => {
                        if message.encryption.is_none() {
                            bail!("the message came as plaintext");
                        }
                        self.show_wire();
                        println!("read {wanted:?} from {}", message.sender);
                        return Ok(json!({"event": message.event_id}));
                    }
                    Event::Message(_) | Event::Invite(_) => {}
                    other => println!("was told {other:?}"),
                }
            }
        }
        bail!("never received {wanted:?}")
    }

    fn show_wire(&self) {
        for Line {
            method,
            path,
            status,
            note,
        } in self.recorder.take()
        {
            println!("  {method:<4} {path} → {status}{note}");
        }
    }
}
