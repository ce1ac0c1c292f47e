//! What may be sent, and how large it becomes: told before anything is encrypted.
//!
//! # Why
//! A ratchet that moved for an event that no homeserver takes is a message that nobody misses and an index that is gone;
//! and a content that some receiver cannot parse is lost without anybody knowing. Both can be computed from the plaintext.
//!
//! # The size of an event
//! The specification allows 65,536 bytes for the whole event as homeservers exchange it. What we put is its content; the
//! homeserver adds the rest, of which the long parts are known here (room, sender, server) and the others are bounded:
//! see [`ADDED`].

use ruma::{DeviceId, OwnedRoomId, RoomId, UserId, events::AnyMessageLikeEventContent, serde::Raw};
use serde_json::{Value, value::RawValue};

use crate::{Error, Result};

/// The most that a whole event may take, in bytes: the specification's "Size limits".
const MAX_EVENT: usize = 65_536;

/// What a homeserver adds to the content at most, in bytes, beside the room's, the sender's and the server's names: the
/// event's type, its depth, its time, a hash, a signature with the name of its key, the names of these fields, and the ids
/// of earlier events and of those that authorize it.
///
/// Measured on Synapse 1.163.2 with contents of growing length, a room of one, and senders of 16 and 211 characters: in
/// rooms of versions 6, 10 and 11 it takes a content of 64,927 bytes and answers 413 to 64,928 (64,732 with the longer
/// name), in version 12 64,959 (64,764). That is 546 and 499 bytes beside the names, with one earlier event and three that
/// authorize. The specification allows 20 and 10 of them, 47 bytes each: 26 more are 1,222. The sum is 1,768, and what is
/// left to this is for longer numbers and names of keys. In rooms of versions 1 and 2, which no homeserver makes any more,
/// these ids can be longer: there the homeserver may still refuse, after the encryption.
const ADDED: usize = 2_048;

/// How deeply a content may be nested. Receivers that read JSON with a limit of 128 levels, as ours does, can read it
/// inside of the event that is inside of the encryption.
const MAX_DEPTH: usize = 100;

/// How many bytes the index of a message takes: a key serves for at most 10,000 messages.
const MAX_INDEX: u32 = 10_000;

/// A content that may be sent.
#[derive(Clone)]
pub(super) struct Checked {
    pub(super) event_type: String,
    pub(super) content: Raw<AnyMessageLikeEventContent>,
    /// What the encrypted content takes at most, in bytes.
    pub(super) bytes: usize,
}

/// Who sends where: what an event's size depends on beside its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) room: &'a RoomId,
    pub(super) user: &'a UserId,
    pub(super) device: &'a DeviceId,
}

impl Frame<'_> {
    /// What the content of an `m.room.encrypted` event may take, in bytes.
    pub(super) fn room_for_content(self) -> usize {
        // The server's name is in the signature, and once more as the origin in old room versions.
        let names = self.room.as_str().len() + self.user.as_str().len() + 2 * self.user.server_name().as_str().len();
        MAX_EVENT.saturating_sub(ADDED + names)
    }

    /// What the content takes once it is encrypted, in bytes, when the message has this index in its session.
    pub(super) fn encrypted(self, event_type: &str, content: &Value, json: &RawValue, index: u32) -> usize {
        // The engine copies it to the outside, so that homeservers can aggregate.
        let relation = content.get("m.relates_to");
        let relation = relation.map_or(0, |relation| r#","m.relates_to":"#.len() + relation.to_string().len());
        let (room, event_type) = (escaped(self.room.as_str()), escaped(event_type));
        let plaintext = r#"{"type":,"content":,"room_id":}"#.len() + event_type + json.get().len() + room;
        // AES-CBC fills up to the next block, and adds one where there is nothing to fill.
        let ciphertext = (plaintext / 16 + 1) * 16;
        // Version, the index and the ciphertext with their tags, the cut MAC, the signature.
        let message = 1 + 1 + varint(index as usize) + 1 + varint(ciphertext) + ciphertext + 8 + 64;
        let base64 = (message * 4).div_ceil(3);
        // Two Curve25519 or Ed25519 keys of 43 characters: the session's id and the sender's.
        let around =
            r#"{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"","sender_key":"","device_id":,"session_id":""}"#;
        around.len() + base64 + 2 * 43 + escaped(self.device.as_str()) + relation
    }
}

/// A content that every homeserver and every receiver accepts: an object, no fractions, no integer beyond what JSON's
/// readers hold (appendix "Canonical JSON" of the specification), not too deep, not too large.
pub(super) fn check(frame: Frame<'_>, event_type: &str, content: &Value) -> Result<Checked> {
    let raw = well_formed(content)?;
    let bytes = frame.encrypted(event_type, content, &raw, MAX_INDEX);
    let max = frame.room_for_content();
    if bytes > max {
        return Err(Error::TooLarge { bytes, max });
    }
    Ok(Checked {
        event_type: event_type.to_owned(),
        content: Raw::from_json(raw),
        bytes,
    })
}

/// As [`check`], for an event that is sent as it is.
pub(super) fn check_plaintext(
    room: &OwnedRoomId,
    user: &UserId,
    content: &Value,
) -> Result<Raw<AnyMessageLikeEventContent>> {
    let raw = well_formed(content)?;
    let frame = Frame {
        room,
        user,
        device: "".into(),
    };
    let (bytes, max) = (raw.get().len(), frame.room_for_content());
    if bytes > max {
        return Err(Error::TooLarge { bytes, max });
    }
    Ok(Raw::from_json(raw))
}

fn well_formed(content: &Value) -> Result<Box<RawValue>> {
    if !content.is_object() {
        return Err(bad("an event's content is a JSON object", ""));
    }
    check_values(content, &mut Path::default())?;
    serde_json::value::to_raw_value(content).map_err(|_| bad("it cannot be written as JSON", ""))
}

fn bad(reason: &'static str, path: &str) -> Error {
    Error::BadContent {
        reason,
        path: path.to_owned(),
    }
}

/// Where a value is, as a JSON pointer. A key that is not a name as events have it may be a secret of the app's, as the
/// contents are: it is shown as `*`.
#[derive(Debug, Default)]
struct Path {
    text: String,
    depth: usize,
}

impl Path {
    fn within<T>(&mut self, step: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.text.len();
        let is_name = step.len() <= 32
            && step
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || b"._0123456789".contains(&byte));
        self.text.push('/');
        self.text.push_str(if is_name { step } else { "*" });
        self.depth += 1;
        let done = inside(self);
        self.depth -= 1;
        self.text.truncate(before);
        done
    }
}

fn check_values(value: &Value, path: &mut Path) -> Result<()> {
    const MAX: i64 = (1 << 53) - 1;
    if path.depth > MAX_DEPTH {
        return Err(bad("it is nested more than 100 levels deep", ""));
    }
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(number) if (-MAX..=MAX).contains(&number) => Ok(()),
            Some(_) => Err(bad("an integer is beyond ±(2^53 − 1)", &path.text)),
            None => Err(bad("a number is not an integer, or too large", &path.text)),
        },
        Value::Array(values) => values
            .iter()
            .enumerate()
            .try_for_each(|(place, value)| path.within(&place.to_string(), |path| check_values(value, path))),
        Value::Object(values) => values
            .iter()
            .try_for_each(|(key, value)| path.within(key, |path| check_values(value, path))),
        _ => Ok(()),
    }
}

/// How many bytes a text takes in JSON, with its quotation marks.
fn escaped(text: &str) -> usize {
    serde_json::to_string(text).map_or(text.len() * 6 + 2, |json| json.len())
}

/// How many bytes a number takes as Protocol Buffers write it.
const fn varint(number: usize) -> usize {
    let bits = usize::BITS - number.leading_zeros();
    if bits == 0 { 1 } else { bits.div_ceil(7) as usize }
}

#[cfg(test)]
mod tests;
