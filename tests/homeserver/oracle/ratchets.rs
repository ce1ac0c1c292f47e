//! I1, I2 and half of I9: no index of a ratchet encrypts two things, and no ciphertext makes two events.

use std::collections::HashMap;

use serde_json::Value;
use vodozemac::{
    megolm::MegolmMessage,
    olm::{Message, PreKeyMessage},
};

use super::{Call, Found, Invariant};

/// Which ciphertext was seen at which index.
#[derive(Clone, Debug, Default)]
pub(super) struct Ratchets {
    /// Session and index, to the ciphertext and its transaction id.
    megolm: HashMap<(String, u32), (String, String)>,
    /// The sender's key, the ratchet's key and the index, to the ciphertext.
    olm: HashMap<(String, String, u64), Vec<u8>>,
}

impl Ratchets {
    pub(super) fn request(&mut self, call: &Call<'_>) -> Found {
        let mut found = Found::new();
        if let Some((_, "m.room.encrypted", transaction)) = call.event_put() {
            found.extend(self.event(&call.parts.body, transaction));
        }
        for ((user, device), content) in call.olm_messages() {
            if let Some(words) = self.message(content) {
                found.push((Invariant::I2, format!("{words}, for {user} {device}")));
            }
        }
        found
    }

    fn event(&mut self, content: &Value, transaction: &str) -> Option<(Invariant, String)> {
        let session = content["session_id"].as_str()?;
        let ciphertext = content["ciphertext"].as_str()?;
        let index = megolm_index(content)?;
        let seen = (ciphertext.to_owned(), transaction.to_owned());
        let before = self
            .megolm
            .entry((session.to_owned(), index))
            .or_insert_with(|| seen.clone());
        if before.0 != seen.0 {
            let words = format!("index {index} of the Megolm session {session} has two ciphertexts");
            return Some((Invariant::I1, words));
        }
        if before.1 != seen.1 {
            let words = format!("index {index} of the Megolm session {session} is sent under two transaction ids");
            return Some((Invariant::I9, words));
        }
        None
    }

    fn message(&mut self, content: &Value) -> Option<String> {
        let sender = content["sender_key"].as_str()?;
        for body in content["ciphertext"].as_object()?.values() {
            let Some(message) = olm_message(body) else { continue };
            let (ratchet, index) = (message.ratchet_key().to_base64(), message.chain_index());
            let bytes = message.to_bytes();
            let key = (sender.to_owned(), ratchet, index);
            if self.olm.entry(key).or_insert_with(|| bytes.clone()) != &bytes {
                return Some(format!("index {index} of an Olm chain of {sender} has two ciphertexts"));
            }
        }
        None
    }
}

/// The index in its Megolm session of an event's content.
pub(super) fn megolm_index(content: &Value) -> Option<u32> {
    let message = MegolmMessage::from_base64(content["ciphertext"].as_str()?).ok()?;
    Some(message.message_index())
}

/// The message itself; a pre-key message is one with a greeting before it.
fn olm_message(body: &Value) -> Option<Message> {
    let text = body["body"].as_str()?;
    match body["type"].as_u64()? {
        0 => Some(PreKeyMessage::from_base64(text).ok()?.message().clone()),
        _ => Message::from_base64(text).ok(),
    }
}
