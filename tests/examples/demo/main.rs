//! The whole story, watched: two devices, each a process of its own, publish keys, mark a room as encrypted, send,
//! receive, reply, are killed, start again from their stores and send again. On the embedded homeserver, or on one of
//! yours with `--homeserver URL`.
#![expect(clippy::print_stdout, reason = "a demonstration talks to people")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use mx_test_homeserver::Homeserver;
use serde_json::{Value, json};

mod device;
mod process;
mod wire;

use process::Device;

const USAGE: &str =
    "usage: demo [--homeserver URL]   (accounts: MX_DEMO_ALICE=name:password MX_DEMO_BOB=name:password)";

struct Account {
    name: String,
    password: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
            let embedded = Homeserver::new();
            let listening = embedded.listen().await;
            let account = |name: &str| {
                let password = format!("{name}-password");
                let _user = embedded.register(name, &password);
                Account {
                    name: name.to_owned(),
                    password,
                }
            };
            story(&listening.uri(), account("alice"), account("bob")).await
        }
        ["--homeserver", url] => story(url, given("MX_DEMO_ALICE")?, given("MX_DEMO_BOB")?).await,
        ["--device", name] => device::serve(name).await,
        _ => bail!("{USAGE}"),
    }
}

fn given(variable: &str) -> Result<Account> {
    let value = std::env::var(variable)
        .with_context(|| format!("set {variable}=name:password to an account on that homeserver"))?;
    let (name, password) = value
        .split_once(':')
        .with_context(|| format!("{variable} is name:password"))?;
    Ok(Account {
        name: name.to_owned(),
        password: password.to_owned(),
    })
}

async fn story(url: &str, alices: Account, bobs: Account) -> Result<()> {
    let started = Instant::now();
    println!("homeserver  {url}");
    step(
        1,
        "each device is a process: it logs in, makes its identity keys and publishes them",
    );
    let mut alice = Device::start("alice").await?;
    let mut bob = Device::start("bob").await?;
    alice
        .ask(json!({"do": "login", "url": url, "user": alices.name, "password": alices.password}))
        .await?;
    let who = bob
        .ask(json!({"do": "login", "url": url, "user": bobs.name, "password": bobs.password}))
        .await?;

    step(
        2,
        "alice makes a room, marks it as encrypted and invites bob, who joins",
    );
    let made = alice.ask(json!({"do": "create", "invite": who["user"]})).await?;
    let room = made["room"].clone();
    bob.ask(json!({"do": "join", "room": room})).await?;

    step(3, "alice sends: one call");
    let first = format!("the eagle lands at noon ({})", unique());
    alice
        .ask(json!({"do": "send", "room": room, "content": text(&first)}))
        .await?;

    step(4, "bob receives: one call");
    let read = bob.ask(json!({"do": "read", "body": first})).await?;

    step(5, "bob replies, alice receives");
    let mut reply = text("understood");
    reply["m.relates_to"] = json!({"m.in_reply_to": {"event_id": read["event"]}});
    bob.ask(json!({"do": "send", "room": room, "content": reply})).await?;
    alice.ask(json!({"do": "read", "body": "understood"})).await?;

    restarted(url, alice, bob, room).await?;
    println!(
        "\ndone in {:.1} s: the homeserver never saw a word of it",
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

async fn restarted(url: &str, mut alice: Device, mut bob: Device, room: Value) -> Result<()> {
    step(
        6,
        "both processes are killed and start again from their stores: the same devices",
    );
    for device in [&mut alice, &mut bob] {
        device.kill_and_start().await?;
        device.ask(json!({"do": "open", "url": url})).await?;
    }

    step(
        7,
        "alice sends again: after a start, what is new is asked for once; bob has the key, and one event goes out",
    );
    let second = "and the eagle has landed";
    let sent = alice
        .ask(json!({"do": "send", "room": room, "content": text(second)}))
        .await?;
    bob.ask(json!({"do": "read", "body": second})).await?;

    step(8, "what the homeserver holds, beside what bob's device read");
    let event = alice
        .ask(json!({"do": "event", "room": room, "event": sent["event"]}))
        .await?;
    let ciphertext = event["content"]["ciphertext"]
        .as_str()
        .context("the homeserver does not hold ciphertext")?;
    println!(
        "   homeserver  {} {}…",
        event["type"],
        ciphertext.chars().take(60).collect::<String>()
    );
    println!("   bob         {second:?}");
    if event.to_string().contains(second) {
        bail!("the homeserver holds the plaintext");
    }
    Ok(())
}

fn step(number: u8, what: &str) {
    println!("\n{number}. {what}");
}

fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

/// Something that no earlier run on the same homeserver has sent.
fn unique() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis())
}
