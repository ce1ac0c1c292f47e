//! The whole story, watched: two devices publish keys, mark a room as encrypted, send, receive, reply, restart from
//! their stores and send again. On the embedded homeserver, or on one of yours with `--homeserver URL`.
#![expect(clippy::print_stdout, reason = "a demonstration talks to people")]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use mx_e2ee::{Client, Event, Message, SendReceipt};
use mx_test_homeserver::Homeserver;

mod wire;
use wire::{Line, Recorder};

/// One side of the story.
struct Side {
    name: &'static str,
    directory: tempfile::TempDir,
    recorder: Arc<Recorder>,
    client: Client,
}

struct Accounts {
    url: String,
    alice: (String, String),
    bob: (String, String),
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => None,
        (Some("--homeserver"), Some(url)) => Some(url),
        _ => {
            bail!("usage: demo [--homeserver URL]   (accounts: MX_DEMO_ALICE=name:password MX_DEMO_BOB=name:password)")
        }
    };
    // The embedded homeserver lives as long as the story.
    let embedded = Homeserver::new();
    let listening = match url {
        None => Some(embedded.listen().await),
        Some(_) => None,
    };
    let accounts = match (url, &listening) {
        (Some(url), _) => Accounts {
            url,
            alice: account("MX_DEMO_ALICE")?,
            bob: account("MX_DEMO_BOB")?,
        },
        (None, Some(listening)) => {
            let _alice = embedded.register("alice", "alice-password");
            let _bob = embedded.register("bob", "bob-password");
            let named = |name: &str| (name.to_owned(), format!("{name}-password"));
            Accounts {
                url: listening.uri(),
                alice: named("alice"),
                bob: named("bob"),
            }
        }
        (None, None) => bail!("there is no homeserver"),
    };
    story(accounts).await
}

fn account(variable: &str) -> Result<(String, String)> {
    let value = std::env::var(variable)
        .with_context(|| format!("set {variable}=name:password to an account on that homeserver"))?;
    let (name, password) = value
        .split_once(':')
        .with_context(|| format!("{variable} is name:password"))?;
    Ok((name.to_owned(), password.to_owned()))
}

async fn story(accounts: Accounts) -> Result<()> {
    let started = Instant::now();
    println!("homeserver  {}", accounts.url);
    step(1, "each device logs in, makes its identity keys and publishes them");
    let alice = Side::log_in("alice", &accounts.url, &accounts.alice).await?;
    let bob = Side::log_in("bob", &accounts.url, &accounts.bob).await?;

    step(
        2,
        "alice makes a room, marks it as encrypted and invites bob, who joins",
    );
    let room = alice
        .client
        .create_plaintext_room(Some("demo"), &[bob.client.user_id().to_owned()])
        .await?;
    room.mark_encrypted().await?;
    let bobs_room = bob.client.join(room.id().as_str()).await?;
    alice.show_wire();
    bob.show_wire();

    step(3, "alice sends: one call");
    let first = format!("the eagle lands at noon ({})", unique());
    shown(&room.send_text(&first).await?);
    alice.show_wire();

    step(4, "bob receives: one call");
    let message = bob.read(&first).await?;
    bob.show_wire();

    step(5, "bob replies, alice receives");
    let reply = serde_json::json!({"msgtype": "m.text", "body": "understood", "m.relates_to": {"m.in_reply_to": {"event_id": message.event_id}}});
    shown(&bobs_room.send("m.room.message", reply).await?);
    alice.read("understood").await?;
    alice.show_wire();
    bob.show_wire();

    step(
        6,
        "both processes end and start again from their stores: the same devices",
    );
    let (alice, bob) = (alice.restart(&accounts.url).await?, bob.restart(&accounts.url).await?);

    step(7, "alice sends again: the key is there already, one event is all");
    let second = "and the eagle has landed";
    let receipt = alice.client.room(room.id()).send_text(second).await?;
    shown(&receipt);
    alice.show_wire();
    bob.read(second).await?;

    step(8, "what the homeserver holds, beside what bob's device read");
    let event = alice.event_on_server(&receipt).await?;
    let ciphertext = event["content"]["ciphertext"]
        .as_str()
        .context("the event on the homeserver is not encrypted")?;
    println!(
        "   homeserver  {} {}…",
        event["type"],
        ciphertext.chars().take(60).collect::<String>()
    );
    println!("   bob         {second:?}");
    if event.to_string().contains(second) {
        bail!("the homeserver holds the plaintext");
    }
    alice.client.close().await?;
    bob.client.close().await?;
    println!(
        "\ndone in {:.1} s: the homeserver never saw a word of it",
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

impl Side {
    async fn log_in(name: &'static str, url: &str, (user, password): &(String, String)) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let recorder = Arc::new(Recorder::new()?);
        let client = Client::builder()
            .homeserver(url)
            .directory(directory.path())
            .transport(recorder.clone())
            .device_name(format!("demo of {name}"))
            .login(user, password)
            .await
            .with_context(|| format!("{name} cannot log in"))?;
        let side = Self {
            name,
            directory,
            recorder,
            client,
        };
        let keys = side.client.key_status().await?;
        side.show_wire();
        println!(
            "   {name:<6} is {} device {}, fingerprint {}",
            keys.user_id, keys.device_id, keys.ed25519
        );
        Ok(side)
    }

    async fn restart(self, url: &str) -> Result<Self> {
        let Self {
            name,
            directory,
            recorder,
            client,
        } = self;
        let before = client.device_id().to_owned();
        client.close().await?;
        let client = Client::builder()
            .homeserver(url)
            .directory(directory.path())
            .transport(recorder.clone())
            .open()
            .await?;
        if client.device_id() != before {
            bail!("{name} came back as another device");
        }
        println!("   {name:<6} is device {before} again");
        Ok(Self {
            name,
            directory,
            recorder,
            client,
        })
    }

    /// Receive until the message is there; what came before it is printed too.
    async fn read(&self, wanted: &str) -> Result<Message> {
        for _ in 0..20 {
            for event in self.client.receive(Duration::from_secs(5)).await? {
                match event {
                    Event::Message(message) if message.body() == Some(wanted) => {
                        if message.encryption.is_none() {
                            bail!("{} read plaintext", self.name);
                        }
                        println!("   {:<6} read {wanted:?} from {}", self.name, message.sender);
                        return Ok(message);
                    }
                    Event::Message(_) | Event::Invite(_) => {}
                    other => println!("   {:<6} was told {other:?}", self.name),
                }
            }
        }
        bail!("{} never received {wanted:?}", self.name)
    }

    async fn event_on_server(&self, receipt: &SendReceipt) -> Result<serde_json::Value> {
        let request = mx_e2ee::ruma::api::client::room::get_room_event::v3::Request::new(
            receipt.room_id.clone(),
            receipt.event_id.clone(),
        );
        let answer = self.client.homeserver().send(request).await?;
        Ok(serde_json::from_str(answer.event.json().get())?)
    }

    fn show_wire(&self) {
        for Line {
            method,
            path,
            status,
            note,
        } in self.recorder.take()
        {
            println!("   {:<6} {method:<4} {path} → {status}{note}", self.name);
        }
    }
}

fn step(number: u8, text: &str) {
    println!("\n{number}. {text}");
}

fn shown(receipt: &SendReceipt) {
    let new = if receipt.new_session {
        "a new room key"
    } else {
        "the room key that they have"
    };
    println!(
        "   sent   {} with {new}, readable by {} other device(s)",
        receipt.event_id,
        receipt.readable_by()
    );
}

/// Something that no earlier run on the same homeserver has sent.
fn unique() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis())
}
