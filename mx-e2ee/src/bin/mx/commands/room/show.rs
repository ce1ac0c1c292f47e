//! `mx room show`: who can read the next message, and why not, as a tree for a terminal.

mod page;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use mx_e2ee::{Client, Outlook, Reader, ReaderDevice, Readership, Recipients, ruma::OwnedUserId, write_private_file};
use serde_json::json;

use super::by_name;
use crate::output::{Output, clean};

/// What is shown of a room: who can read, and how they are called.
struct Shown {
    name: Option<String>,
    readers: Readership,
    /// What people call themselves. Anybody can be called anything.
    names: BTreeMap<OwnedUserId, String>,
    now_ms: u64,
}

pub(super) async fn run(client: &Client, room: &str, html: Option<(&Path, bool)>, output: Output) -> Result<()> {
    let room = by_name(client, room).await?;
    if let Some((path, false)) = html
        && path.exists()
    {
        let path = path.to_owned();
        return Err(mx_e2ee::Error::FileExists { path }.into());
    }
    let progress = output.progress("asking who can read");
    let readers = room.readership().await?;
    let members = room.members().await?;
    let named = members
        .into_iter()
        .filter_map(|member| Some((member.user_id, member.display_name?)));
    let shown = Shown {
        name: room.name().await?,
        readers,
        names: named.collect(),
        now_ms: now_ms(),
    };
    progress.finish_and_clear();
    if let Some((path, replace)) = html {
        write_private_file(path, page::of(&shown).as_bytes(), replace)?;
        output.note(&format!("the picture is in {}", path.display()));
    }
    let mut json = json!(shown.readers);
    if let Some(object) = json.as_object_mut() {
        object.insert("name".to_owned(), json!(shown.name));
        object.insert("display_names".to_owned(), json!(shown.names));
    }
    output.show(&json, &shown.tree())?;
    Ok(())
}

/// More of a name is not shown.
const LONGEST_NAME: usize = 64;

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Shown {
    fn tree(&self) -> String {
        let readers = &self.readers;
        let name = self.name.as_deref().map(|name| format!(" “{}”", quoted(name)));
        let mut lines = vec![format!(
            "{}{}",
            clean(readers.room_id.as_str()),
            name.unwrap_or_default()
        )];
        lines.extend(self.head());
        lines.extend(self.key());
        for (mark, refusals) in [("REFUSED", &readers.refused), ("WARNING", &readers.warnings)] {
            let refusals = refusals.iter();
            lines.extend(refusals.map(|refusal| format!("{mark} [{}] {}", refusal.code, clean(&refusal.advice))));
        }
        let last = readers.users.len().saturating_sub(1);
        for (number, reader) in readers.users.iter().enumerate() {
            let (branch, below) = if number == last {
                ("└─", "   ")
            } else {
                ("├─", "│  ")
            };
            lines.push(format!("{branch} {}", self.user(reader)));
            let last = reader.devices.len().saturating_sub(1);
            for (number, device) in reader.devices.iter().enumerate() {
                let branch = if number == last { "└─" } else { "├─" };
                lines.push(format!("{below}{branch} {}", device_line(device)));
            }
        }
        lines.join("\n")
    }

    /// How it is encrypted, and for how many.
    fn head(&self) -> Vec<String> {
        let readers = &self.readers;
        let encrypted = if readers.encrypted {
            format!("encrypted, {}", care(readers.recipients))
        } else {
            "NOT ENCRYPTED: everybody can read it, the homeserver too".to_owned()
        };
        let (can, all) = self.counts();
        vec![encrypted, format!("{can} of {all} device(s) can read the next message")]
    }

    /// Devices that can read the next message, of all.
    fn counts(&self) -> (usize, usize) {
        let devices = || self.readers.users.iter().flat_map(|reader| &reader.devices);
        let can = devices().filter(|device| device.outlook.can_read()).count();
        (can, devices().count())
    }

    fn key(&self) -> Option<String> {
        let renewal = self.readers.renewal.map(|reason| reason.describe());
        if !self.readers.encrypted {
            return None;
        }
        let used = self.readers.key.as_ref().map(|key| {
            let age = key.since_ms.map(|since| age(self.now_ms.saturating_sub(since)));
            format!(
                "room key {}: {} of {} messages, {} of {}",
                clean(&key.session_id.chars().take(10).collect::<String>()),
                key.messages,
                key.most_messages,
                age.unwrap_or_else(|| "? days".to_owned()),
                self::age(key.period_ms)
            )
        });
        Some(match (used, renewal) {
            (Some(used), None) => used,
            (Some(used), Some(why)) => format!("{used}; the next message gets a new one, since {why}"),
            (None, Some(why)) => format!("the next message gets a new room key: {why}"),
            (None, None) => "the next message gets a new room key".to_owned(),
        })
    }

    fn user(&self, reader: &Reader) -> String {
        let mut line = clean(reader.user_id.as_str());
        if let Some(name) = self.names.get(&reader.user_id) {
            line.push_str(&format!(" “{}”", quoted(name)));
        }
        line.push_str(&format!(" ({})", self.about(reader).join(", ")));
        line
    }

    fn about(&self, reader: &Reader) -> Vec<&'static str> {
        let mut about = Vec::new();
        if reader.own {
            about.push("ourselves");
        }
        about.push(reader.identity.describe());
        if !reader.allowed {
            about.push("NOT ALLOWED to read");
        }
        if reader.unknown {
            about.push("DEVICES UNKNOWN");
        } else if reader.devices.is_empty() {
            about.push("NO DEVICE");
        } else if !reader.can_read() {
            about.push("CANNOT READ");
        }
        about
    }
}

/// A name from the network inside quotation marks, which it cannot close.
fn quoted(name: &str) -> String {
    let name: String = clean(name).chars().take(LONGEST_NAME).collect();
    name.replace(['“', '”'], "\"")
}

fn device_line(device: &ReaderDevice) -> String {
    let mark = if device.outlook.can_read() { "✓" } else { "✗" };
    let name = device.name.as_deref().map(|name| format!(" “{}”", quoted(name)));
    let name = name.unwrap_or_default();
    let id = clean(device.device_id.as_str());
    if device.outlook == Outlook::ThisDevice {
        return format!("{mark} {id}{name}: this device");
    }
    format!(
        "{mark} {id}{name}: {}; {}",
        device.outlook.describe(),
        device.trust.describe()
    )
}

const fn care(recipients: Recipients) -> &'static str {
    match recipients {
        Recipients::Strict => "strict: refused while anybody's devices are unknown",
        Recipients::BestEffort => "best effort: sent to those who are known",
        Recipients::OnlyTrusted => "for trusted devices only",
        _ => "?",
    }
}

/// A time in the unit that people would use.
fn age(ms: u64) -> String {
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match ms {
        0..MINUTE => "less than a minute".to_owned(),
        MINUTE..HOUR => format!("{} min", ms / MINUTE),
        HOUR..DAY => format!("{} h", ms / HOUR),
        _ => format!("{} days", ms / DAY),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_their_unit() {
        let said = [0, 59_999, 60_000, 3_600_000, 86_399_999, 604_800_000].map(age);
        assert_eq!(
            said,
            [
                "less than a minute",
                "less than a minute",
                "1 min",
                "1 h",
                "23 h",
                "7 days"
            ]
        );
    }
}
