//! `mx send`.

use std::{io::Read, path::Path, time::Duration};

use anyhow::Result;
use mx_e2ee::{Attachment, Content, DeviceOutcome, Error, Recipients, SendOptions, SendReceipt};
use serde_json::{Value, json};

use super::{
    progress,
    room::by_name,
    say::{self, Place},
};
use crate::{
    cli::{Care, Cli, Send},
    output::{Output, clean},
    profile,
};

/// No event holds more than this many bytes of text: the specification's "Size limits".
const MOST_TEXT: u64 = 65_536;

pub(crate) async fn run(cli: &Cli, send: &Send, output: Output) -> Result<()> {
    let what = what(send)?;
    let client = profile::open_within(cli, Duration::from_secs(send.wait), output).await?;
    let room = by_name(&client, &send.room).await?;
    let options = SendOptions {
        recipients: send.care.recipients(),
        into_tombstoned: send.into_tombstoned,
    };
    let sending = async {
        match what {
            What::Event(content) => room.send_with(&send.event_type, content, options).await,
            What::Message(content, place) => say::say(&room, content, place, options).await,
            What::File(attachment) => room.send_attachment_with(*attachment, options).await,
        }
    };
    let receipt = progress::shown(&client, output, "encrypting and sending", sending).await?;
    client.close().await?;
    tell(&receipt, output);
    output.show(&json!(receipt), &clean(receipt.event_id.as_str()))?;
    Ok(())
}

enum What {
    Event(Value),
    Message(Content, Place),
    File(Box<Attachment>),
}

fn what(send: &Send) -> Result<What> {
    if let Some(path) = &send.file {
        return Ok(What::File(Box::new(attachment(send, path))));
    }
    if let Some(content) = &send.content {
        let content = serde_json::from_str(content);
        return content
            .map(What::Event)
            .map_err(|error| wrong(&format!("--content is not JSON: {error}")));
    }
    let place = Place::of(send)?;
    Ok(What::Message(message(send)?, place))
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

fn message(send: &Send) -> Result<Content> {
    let text = match send.text.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        _ => text_of(std::io::stdin())?,
    };
    if text.is_empty() {
        return Err(wrong("there is no text to send"));
    }
    let content = if send.markdown {
        Content::markdown(text)
    } else {
        Content::text(text)
    };
    Ok(if send.notice { content.notice() } else { content })
}

/// What is on stdin, and no more of it than an event could carry.
fn text_of(stdin: impl Read) -> Result<String> {
    let mut text = Vec::new();
    stdin.take(MOST_TEXT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_TEXT {
        return Err(Error::from(mx_e2ee::orchestrator::Error::TooLarge {
            bytes: text.len(),
            max: usize::try_from(MOST_TEXT)?,
        })
        .into());
    }
    let text = String::from_utf8(text).map_err(|_| wrong("the text on stdin is not UTF-8"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn wrong(what: &str) -> anyhow::Error {
    Error::Configuration { what: what.to_owned() }.into()
}

/// Who can read it, and who cannot and why.
pub(super) fn tell(receipt: &SendReceipt, output: Output) {
    let key = match receipt.rotation {
        Some(reason) => format!("with a new room key ({})", reason.describe()),
        None => "with the room key that they have".to_owned(),
    };
    output.note(&format!(
        "sent {key}, readable by {} other device(s)",
        receipt.readable_by()
    ));
    for device in receipt.devices.iter() {
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
    for user in &receipt.users_unknown {
        output.note(&format!("not readable by {user}: the devices are unknown"));
    }
    for user in receipt.users_without_devices.iter() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives for ever, and counts.
    struct Endless(u64);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b'x');
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }

    #[test]
    fn lm_05_an_endless_stdin_is_refused_after_what_an_event_may_hold() {
        let mut endless = Endless(0);
        let error = text_of(&mut endless).unwrap_err();
        let code = error.downcast_ref::<Error>().map(Error::code);
        assert_eq!(code, Some("too_large"));
        assert!(endless.0 <= 2 * MOST_TEXT, "{} bytes were read", endless.0);
    }

    #[test]
    fn text_is_read_to_its_last_line() {
        assert_eq!(text_of(&b"one\ntwo\n\n"[..]).unwrap(), "one\ntwo");
        assert!(text_of(&b"\xff"[..]).unwrap_err().to_string().contains("UTF-8"));
        let longest = vec![b'x'; usize::try_from(MOST_TEXT).unwrap()];
        assert_eq!(text_of(&longest[..]).unwrap().len(), longest.len());
    }
}
