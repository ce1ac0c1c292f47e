//! `mx send`.

use std::{io::Read, path::Path, time::Duration};

use anyhow::Result;
use mx_e2ee::{Attachment, DeviceOutcome, Error, Recipients, SendOptions, SendReceipt};
use serde_json::{Value, json};

use super::room::by_name;
use crate::{
    cli::{Care, Cli, Send},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, send: &Send, output: Output) -> Result<()> {
    let what = what(send)?;
    let client = profile::open_within(cli, Duration::from_secs(send.wait), output).await?;
    let room = by_name(&client, &send.room).await?;
    let options = SendOptions {
        recipients: send.care.recipients(),
        into_tombstoned: send.into_tombstoned,
    };
    let progress = output.progress("encrypting and sending");
    let receipt = match what {
        What::Event(content) => room.send_with(&send.event_type, content, options).await,
        What::File(attachment) => room.send_attachment_with(*attachment, options).await,
    };
    progress.finish_and_clear();
    let receipt = receipt?;
    client.close().await?;
    tell(&receipt, output);
    output.show(&json!(receipt), &clean(receipt.event_id.as_str()))?;
    Ok(())
}

/// More than this is in no event, in bytes.
const MAX_TEXT_BYTES: u64 = 65_536;

enum What {
    Event(Value),
    File(Box<Attachment>),
}

fn what(send: &Send) -> Result<What> {
    match &send.file {
        Some(path) => Ok(What::File(Box::new(attachment(send, path)))),
        None => content(send).map(What::Event),
    }
}

fn attachment(send: &Send, path: &Path) -> Attachment {
    let mut attachment = match &send.name {
        Some(name) if path == Path::new("-") => Attachment::from_reader(name, std::io::stdin()),
        Some(name) => Attachment::from_path(path).name(name),
        None => Attachment::from_path(path),
    };
    if let Some(mime) = &send.mime {
        attachment = attachment.mime(mime);
    }
    if let Some(caption) = &send.caption {
        attachment = attachment.caption(caption);
    }
    match &send.thumbnail {
        Some(thumbnail) => attachment.thumbnail(Attachment::from_path(thumbnail)),
        None => attachment,
    }
}

fn content(send: &Send) -> Result<Value> {
    if let Some(content) = &send.content {
        return serde_json::from_str(content).map_err(|error| wrong(&format!("--content is not JSON: {error}")));
    }
    let text = match send.text.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        _ => {
            let text = text_of(std::io::stdin())?;
            text.trim_end_matches('\n').to_owned()
        }
    };
    if text.is_empty() {
        return Err(wrong("there is no text to send"));
    }
    Ok(json!({"msgtype": if send.notice { "m.notice" } else { "m.text" }, "body": text}))
}

/// What is on stdin, and no more of it than an event could carry.
fn text_of(stdin: impl Read) -> Result<String> {
    let mut text = Vec::new();
    stdin.take(MAX_TEXT_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_TEXT_BYTES {
        return Err(Error::from(mx_e2ee::orchestrator::Error::TooLarge {
            bytes: text.len(),
            max: usize::try_from(MAX_TEXT_BYTES)?,
        })
        .into());
    }
    String::from_utf8(text).map_err(|_| wrong("the text on stdin is not UTF-8"))
}

fn wrong(what: &str) -> anyhow::Error {
    Error::Configuration { what: what.to_owned() }.into()
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
            "not readable by {} device {}: {}",
            device.user_id,
            clean(device.device_id.as_str()),
            clean(why)
        ));
    }
    for user in &receipt.users_without_devices {
        output.note(&format!("not readable by {user}: there is no device"));
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
