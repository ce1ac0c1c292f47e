//! `mx send`.

use std::io::Read;

use anyhow::{Context, Result, bail};
use mx_e2ee::{DeviceOutcome, Progress, ProgressStep, Recipients, SendReceipt};
use serde_json::{Value, json};

use super::room::by_name;
use crate::{
    cli::{Cli, Send},
    output::Output,
    profile,
};

/// No event holds more than this many bytes of text: the specification's "Size limits".
const MOST_TEXT: u64 = 65_536;

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
    let mut steps = client.orchestrator().progress();
    let mut sending = std::pin::pin!(room.send_to(&send.event_type, content, recipients));
    let receipt = loop {
        tokio::select! {
            biased;
            receipt = &mut sending => break receipt,
            Ok(()) = steps.changed() => {
                let step = steps.borrow_and_update().clone();
                progress.set_message(step.map_or_else(String::new, |step| in_words(&step)));
            }
        }
    };
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
        _ => text_of(std::io::stdin().lock())?,
    };
    if text.is_empty() {
        bail!("there is no text to send");
    }
    Ok(json!({"msgtype": if send.notice { "m.notice" } else { "m.text" }, "body": text}))
}

/// How far a send to many is.
fn in_words(progress: &Progress) -> String {
    let what = match progress.step {
        ProgressStep::Devices => "asking for the devices of users",
        ProgressStep::Sessions => "opening sessions with devices",
        ProgressStep::Keys => "giving the room key to devices",
        _ => "encrypting and sending",
    };
    format!("{what}: {} of {}", progress.done, progress.total)
}

/// The text that a reader holds. More than any event may hold is not read.
fn text_of(from: impl Read) -> Result<String> {
    let mut text = Vec::new();
    from.take(MOST_TEXT + 1)
        .read_to_end(&mut text)
        .context("stdin cannot be read")?;
    if text.len() as u64 > MOST_TEXT {
        // The exact figure would take reading all of it.
        let too_large = mx_e2ee::orchestrator::Error::TooLarge {
            bytes: text.len(),
            max: text.len() - 1,
        };
        return Err(mx_e2ee::Error::from(too_large).into());
    }
    let text = String::from_utf8(text).context("the text on stdin is not UTF-8")?;
    Ok(text.trim_end_matches('\n').to_owned())
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
        let code = error.downcast_ref::<mx_e2ee::Error>().map(mx_e2ee::Error::code);
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
