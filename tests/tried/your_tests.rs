//! Tests of a bot of yours, with a homeserver in the test's process: no container, no port, no waiting.
//!
//! In your project this is `tests/bot.rs`, with `mx-test-homeserver` and `tokio` (features `macros`, `test-util`) among
//! the `dev-dependencies`. Here: `cargo test --workspace --test examples your_tests`.

use std::time::Duration;

use mx_e2ee::{Client, Error, Event, Room};
use mx_test_homeserver::{Fault, Homeserver};

/// The bot under test: it answers `ping`. Yours is in your crate.
async fn bot(client: &Client) -> Result<(), Error> {
    for event in client.receive(Duration::from_secs(5)).await? {
        if let Event::Message(message) = event
            && message.body() == Some("ping")
        {
            client.room(&message.room_id).send_text("pong").await?;
        }
    }
    Ok(())
}

/// A homeserver, the bot and somebody else on it, and a room of both.
struct Scene {
    server: Homeserver,
    bot: Client,
    room: Room,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn new() -> anyhow::Result<Self> {
        let (server, directory) = (Homeserver::new(), tempfile::tempdir()?);
        let mut clients = Vec::new();
        for name in ["bot", "friend"] {
            let _user = server.register(name, "password");
            let builder = Client::builder()
                .homeserver("http://localhost")
                .transport(server.transport());
            clients.push(
                builder
                    .directory(directory.path().join(name))
                    .login(name, "password")
                    .await?,
            );
        }
        let room = clients[1].create_room(None, &[clients[0].user_id().to_owned()]).await?;
        let bot = clients.swap_remove(0);
        bot.join(room.id().as_str()).await?;
        Ok(Self {
            server,
            bot,
            room,
            _directory: directory,
        })
    }

    /// What the friend can read of what came.
    async fn read(&self) -> anyhow::Result<Vec<String>> {
        let events = self.room.client().receive(Duration::ZERO).await?;
        let bodies = events.iter().filter_map(|event| match event {
            Event::Message(message) => message.body().map(str::to_owned),
            _ => None,
        });
        Ok(bodies.collect())
    }
}

// `start_paused`: where nobody has anything to do, tokio's clock jumps. Five seconds take no time.
#[tokio::test(start_paused = true)]
async fn it_answers_a_ping_and_nothing_else() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.room.send_text("ping").await?;
    scene.room.send_text("pang").await?;
    bot(&scene.bot).await?;
    assert_eq!(scene.read().await?, ["pong"]);
    // Nothing on the wire was what it must never be: no plaintext, no key used twice, no event before its key.
    assert!(scene.server.violations().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_on_the_way_is_not_said_twice() -> anyhow::Result<()> {
    let scene = Scene::new().await?;
    scene.room.send_text("ping").await?;
    // The homeserver takes the bot's next event, and its confirmation never arrives.
    scene.server.fault(Fault::drop_after("/send/m.room.encrypted/"));
    // Whatever the bot was told: what it said is safe, and goes out with the same id.
    let _told = bot(&scene.bot).await;
    bot(&scene.bot).await?;
    assert_eq!(scene.read().await?, ["pong"]);
    Ok(())
}
