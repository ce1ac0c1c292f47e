//! `mx send`.

use std::io::Read;

use anyhow::{Context, Result, bail};
use mx_e2ee::{DeviceOutcome, Recipients, SendReceipt};
use serde_json::{Value, json};

use super::room::by_name;
use crate::{
    cli::{Cli, Send},
    output::Output,
    profile,
};

pub(crate) async fn run(cli: &Cli, send: &Send, output: Output) -> Result<()> {
    let content = content(send)?;
    let client = profile::open(cli).await?;
    let room = by_name(&client, &send.room).await?;
    let recipients = if send.best_effort {
        Recipients::BestEffort
    } else {
        Recipients::Strict
    };
    let progress = output.progress("encrypting and sending");
    let receipt = room.send_to(&send.event_type, content, recipients).await;
    progress.finish_and_clear();
    let receipt = receipt?;
    client.close().await?;
    tell(&receipt, output);
    output.show(&json!(receipt), receipt.event_id.as_str())?;
    Ok(())
}

fn content(send: &Send) -> Result<Value> {
    if let Some(content) = &send.content {
        return serde_json::from_str(content).context("--content is not JSON");
    }
    let text = match send.text.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        _ => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("the text on stdin is not UTF-8")?;
            text.trim_end_matches('\n').to_owned()
        }
    };
    if text.is_empty() {
        bail!("there is no text to send");
    }
    Ok(json!({"msgtype": if send.notice { "m.notice" } else { "m.text" }, "body": text}))
}

/// Who can read it, and who cannot and why.
fn tell(receipt: &SendReceipt, output: Output) {
    let key = if receipt.new_session {
        "with a new room key"
    } else {
        "with the room key that they have"
    };
    output.note(&format!(
        "sent {key}, readable by {} other device(s)",
        receipt.readable_by()
    ));
    for device in &receipt.devices {
        if matches!(device.outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad) {
            continue;
        }
        let why = device.outcome.describe();
        output.note(&format!(
            "not readable by {} device {}: {why}",
            device.user_id, device.device_id
        ));
    }
    for user in &receipt.users_unknown {
        output.note(&format!("not readable by {user}: the devices are unknown"));
    }
}
