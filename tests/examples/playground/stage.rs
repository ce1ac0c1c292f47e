//! The homeserver, the bot's account, and the friend who talks to it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use mx_e2ee::{Client, Event, Message, Room};
use mx_test_homeserver::{Homeserver, Listening};
use ruma::{OwnedEventId, OwnedUserId, UserId};
use tokio::{process::Command, time::timeout};

use crate::bot::PATIENCE;

/// How long the friend waits for news at a time.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Everything but the bot.
pub(crate) struct Stage {
    pub(crate) server: Homeserver,
    listening: Listening,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) bot: OwnedUserId,
    friend: Client,
    heard: Vec<Message>,
}

impl Stage {
    pub(crate) async fn new() -> Result<Self> {
        let server = Homeserver::new();
        let bot = server.register("bot", "bot-password");
        let _user = server.register("friend", "friend-password");
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("password"), "bot-password\n")?;
        let friend = Client::builder()
            .homeserver("http://localhost")
            .transport(server.transport())
            .directory(directory.path().join("friend"))
            .login("friend", "friend-password")
            .await?;
        let listening = server.listen().await;
        println!("homeserver  {}", listening.uri());
        Ok(Self {
            server,
            listening,
            directory,
            bot,
            friend,
            heard: Vec::new(),
        })
    }

    /// An example, with what every one of them is told by its environment.
    pub(crate) fn example(&self, name: &str) -> Result<Command> {
        let mut path = std::env::current_exe()?;
        path.set_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        anyhow::ensure!(
            path.exists(),
            "build the examples first: cargo build --workspace --examples"
        );
        let mut command = Command::new(path);
        command
            .env("MX_HOMESERVER", self.listening.uri())
            .env("MX_USER", "bot")
            .env("MX_PASSWORD_FILE", self.directory.path().join("password"))
            .env("MX_DIRECTORY", self.bot_directory())
            .env("MX_OWNER", self.friend.user_id().as_str());
        Ok(command)
    }

    fn bot_directory(&self) -> PathBuf {
        self.directory.path().join("bot")
    }

    /// What `mx login` does.
    pub(crate) async fn log_bot_in(&self) -> Result<Client> {
        let builder = Client::builder().homeserver(self.listening.uri());
        Ok(builder
            .directory(self.bot_directory())
            .login("bot", "bot-password")
            .await?)
    }

    /// A room of the friend's, with these users invited.
    pub(crate) async fn room(&self, users: &[OwnedUserId]) -> Result<Room> {
        Ok(self.friend.create_room(Some("the stage"), users).await?)
    }

    /// Until everybody who is invited has joined.
    pub(crate) async fn all_joined(&mut self, room: &Room) -> Result<()> {
        let joined = async {
            while room.members().await?.iter().any(|member| member.membership != "join") {
                self.listen().await?;
            }
            Ok(())
        };
        timeout(PATIENCE, joined).await.context("somebody does not join")?
    }

    /// The friend says something: the event.
    pub(crate) async fn say(&self, room: &Room, text: &str) -> Result<OwnedEventId> {
        println!("friend: {text}");
        let receipt = room.send_text(text).await?;
        anyhow::ensure!(receipt.readable_by() > 0, "nobody can read that");
        Ok(receipt.event_id)
    }

    /// Until the friend hears something like this from somebody, encrypted.
    pub(crate) async fn hears(
        &mut self,
        sender: &UserId,
        wanted: impl Fn(&Message) -> bool + Send + Sync,
    ) -> Result<Message> {
        let heard = async {
            loop {
                let is_it =
                    |message: &Message| message.sender == sender && message.encryption.is_some() && wanted(message);
                if let Some(place) = self.heard.iter().position(is_it) {
                    return Ok::<_, anyhow::Error>(self.heard.remove(place));
                }
                self.listen().await?;
            }
        };
        let message = timeout(PATIENCE, heard)
            .await
            .context("the friend does not hear it")??;
        println!(
            "friend hears from {sender}: {} {}",
            message.event_type,
            message.body().unwrap_or_default()
        );
        Ok(message)
    }

    async fn listen(&mut self) -> Result<()> {
        for event in self.friend.receive(A_MOMENT).await? {
            if let Event::Message(message) = event {
                self.heard.push(message);
            }
        }
        Ok(())
    }
}
