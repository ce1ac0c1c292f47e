//! `mx send`.

use std::io::Read;

use anyhow::{Context, Result, bail};
use mx_e2ee::{DeviceOutcome, Recipients, SendOptions, SendReceipt};
use serde_json::{Value, json};

use super::room::by_name;
use crate::{
    cli::{Care, Cli, Send},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, send: &Send, output: Output) -> Result<()> {
    let content = content(send)?;
    let client = profile::open(cli).await?;
    let room = by_name(&client, &send.room).await?;
    let options = SendOptions {
        recipients: send.care.recipients(),
        into_tombstoned: send.into_tombstoned,
    };
    let progress = output.progress("encrypting and sending");
    let receipt = room.send_with(&send.event_type, content, options).await;
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
    let key = match receipt.rotation {
        Some(reason) => format!("with a new room key ({})", reason.describe()),
        None => "with the room key that they have".to_owned(),
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
    for user in &receipt.users_without_devices {
        output.note(&format!("not readable by {user}: there is no device"));
    }
    for user in &receipt.recipients_added {
        output.note(&format!("new since the last message: {user}"));
    }
    for device in &receipt.new_devices {
        output.note(&format!(
            "new since the last message: {} device {}",
            device.user_id,
            clean(device.device_id.as_str())
        ));
    }
    for warning in &receipt.warnings {
        output.note(&format!("warning: {}", warning.describe()));
    }
}

impl Care {
    /// `None`: the room's policy holds.
    pub(super) const fn recipients(&self) -> Option<Recipients> {
        if self.strict {
            Some(Recipients::Strict)
        } else if self.best_effort {
            Some(Recipients::BestEffort)
        } else if self.only_trusted {
            Some(Recipients::OnlyTrusted)
        } else {
            None
        }
    }
}
