//! The largest event: what we send at most, and what a homeserver takes at most, measured.
#![expect(clippy::print_stdout, reason = "a measurement talks to people")]

use anyhow::{Context, Result, bail, ensure};
use mx_e2ee::{Client, Error, Room, orchestrator};
use ruma::{TransactionId, api::client::message::send_message_event, serde::Raw};
use serde_json::{Value, json};

const USAGE: &str = "usage: border --homeserver URL   (account: MX_DEMO_ALICE=name:password)";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [option, url] = arguments.as_slice() else {
        bail!("{USAGE}")
    };
    ensure!(option == "--homeserver", "{USAGE}");
    let account = std::env::var("MX_DEMO_ALICE").context(USAGE)?;
    let (name, password) = account.split_once(':').context(USAGE)?;
    let directory = tempfile::tempdir()?;
    let client = Client::builder()
        .homeserver(url)
        .directory(directory.path())
        .login(name, password)
        .await?;
    let room = client.create_room(None, &[]).await?;
    let ours = ours(&room).await?;
    let theirs = theirs(&client, &room).await?;
    println!("the largest content that we send, in bytes            {ours}");
    println!("the largest content that this homeserver takes        {theirs}");
    ensure!(ours <= theirs, "we would encrypt what this homeserver refuses");
    client.logout().await?;
    Ok(())
}

/// The largest encrypted content that we send, which the homeserver must take.
async fn ours(room: &Room) -> Result<usize> {
    let (mut fits, mut border, mut most) = (0, 65_536, 0);
    while border - fits > 1 {
        let middle = usize::midpoint(fits, border);
        match room.send_text("x".repeat(middle)).await {
            Ok(_) => fits = middle,
            Err(Error::Orchestrator(orchestrator::Error::TooLarge { max, .. })) => (border, most) = (middle, max),
            Err(error) => return Err(error).context("the homeserver refuses what we may send"),
        }
    }
    Ok(most)
}

/// The largest content of an encrypted event that the homeserver takes, from whomever.
async fn theirs(client: &Client, room: &Room) -> Result<usize> {
    let device = client.device_id();
    let content = |bytes: usize| -> Result<Box<serde_json::value::RawValue>> {
        let mut content = json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "", "device_id": device,
            "sender_key": "k".repeat(43), "session_id": "s".repeat(43)});
        let missing = bytes.saturating_sub(content.to_string().len());
        content["ciphertext"] = Value::from("x".repeat(missing));
        Ok(serde_json::value::to_raw_value(&content)?)
    };
    let (mut fits, mut border) = (1_000, 65_536);
    while border - fits > 1 {
        let middle = usize::midpoint(fits, border);
        let request = send_message_event::v3::Request::new_raw(
            room.id().to_owned(),
            TransactionId::new(),
            "m.room.encrypted".into(),
            Raw::from_json(content(middle)?),
        );
        match client.homeserver().send(request).await {
            Ok(_) => fits = middle,
            Err(mx_e2ee::transport::RequestError::Api { status, .. }) if status.as_u16() == 413 => border = middle,
            Err(error) => return Err(error).context("neither taken nor too large"),
        }
    }
    Ok(fits)
}
