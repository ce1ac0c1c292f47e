//! A bundle of room keys: as a file that only its receiver opens, and what is inside, looked at key by key.
//!
//! # Why
//! The engine reads a bundle as a whole, so that one key that nobody can read would keep all others away, and takes a key
//! under the session that the bundle names, whatever the key itself says.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
    marker::PhantomData,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use matrix_sdk_common::deserialized_responses::WithheldCode;
use matrix_sdk_crypto::{
    AttachmentDecryptor, AttachmentEncryptor, MediaEncryptionInfo,
    types::{
        EventEncryptionAlgorithm,
        events::room_key_withheld::RoomKeyWithheldContent,
        room_history::{HistoricRoomKey, RoomKeyBundle},
    },
    vodozemac::megolm::{InboundGroupSession, SessionConfig},
};
use mx_transport::{Chunks, Sink, Source};
use ruma::RoomId;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::HistoryRefusedReason;

/// No bundle is larger, in bytes: about fifty thousand keys.
pub(super) const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes that are sent.
#[derive(Debug)]
pub(super) struct Whole(pub(super) Bytes);

impl Source for Whole {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> Chunks {
        let bytes = self.0.clone();
        stream::once(async move { Ok(bytes) }).boxed()
    }
}

/// Bytes that are received.
#[derive(Debug, Default)]
pub(super) struct Received(pub(super) Vec<u8>);

#[async_trait]
impl Sink for Received {
    fn max_bytes(&self) -> u64 {
        MAX_BYTES
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.0.extend_from_slice(&chunk);
        Ok(())
    }
}

/// Encrypt a bundle: what is uploaded, and what opens it.
pub(super) fn seal(plaintext: &[u8]) -> io::Result<(Arc<Whole>, MediaEncryptionInfo)> {
    let mut reader = plaintext;
    let mut encryptor = AttachmentEncryptor::new(&mut reader);
    let mut ciphertext = Vec::with_capacity(plaintext.len());
    encryptor.read_to_end(&mut ciphertext)?;
    Ok((Arc::new(Whole(ciphertext.into())), encryptor.finish()))
}

/// Decrypt a bundle, after all of it was compared with its hash.
pub(super) fn open(ciphertext: &[u8], info: &MediaEncryptionInfo) -> Result<Zeroizing<Vec<u8>>, HistoryRefusedReason> {
    let mut plaintext = Zeroizing::new(Vec::with_capacity(ciphertext.len()));
    pass(ciphertext, info, &mut io::sink())?;
    pass(ciphertext, info, &mut *plaintext)?;
    Ok(plaintext)
}

fn pass(ciphertext: &[u8], info: &MediaEncryptionInfo, to: &mut dyn io::Write) -> Result<(), HistoryRefusedReason> {
    // Its key is not to be had a second time.
    let info = serde_json::to_value(info).and_then(serde_json::from_value::<MediaEncryptionInfo>);
    let info = info.map_err(|_| HistoryRefusedReason::Malformed)?;
    let mut reader = ciphertext;
    let decryptor = AttachmentDecryptor::new(&mut reader, info);
    let mut decryptor = decryptor.map_err(|_| HistoryRefusedReason::Malformed)?;
    io::copy(&mut decryptor, to).map_err(|_| HistoryRefusedReason::Corrupt)?;
    Ok(())
}

/// What is inside, as far as it can be used.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) keys: Vec<HistoricRoomKey>,
    pub(super) withheld: Vec<RoomKeyWithheldContent>,
    pub(super) unusable: usize,
}

/// Keys stay out of logs.
impl fmt::Debug for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looked")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl Looked {
    /// The next `most` keys, as the engine takes them.
    pub(super) fn next(&mut self, most: usize) -> Option<RoomKeyBundle> {
        let at = self.keys.len().saturating_sub(most);
        let room_keys = self.keys.split_off(at);
        (!room_keys.is_empty()).then(|| RoomKeyBundle {
            room_keys,
            withheld: Vec::new(),
        })
    }
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    room_keys: AtMost<'a, MOST_KEYS>,
    #[serde(borrow, default)]
    withheld: AtMost<'a, MOST_WITHHELD>,
}

/// No bundle holds more keys. Thirty-two MiB of nothing but commas are many values.
const MOST_KEYS: usize = 50_000;
/// Nor is more word taken of keys that are not in it.
const MOST_WITHHELD: usize = 5_000;

/// The first values of an array, and whether there are more.
#[derive(Default)]
struct AtMost<'a, const MOST: usize> {
    values: Vec<&'a RawValue>,
    more: bool,
}

impl<'de: 'a, 'a, const MOST: usize> Deserialize<'de> for AtMost<'a, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values<'a, const MOST: usize>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a, const MOST: usize> Visitor<'de> for Values<'a, MOST> {
            type Value = AtMost<'a, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = AtMost::default();
                while all.values.len() < MOST {
                    match seq.next_element()? {
                        Some(value) => all.values.push(value),
                        None => return Ok(all),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    all.more = true;
                }
                Ok(all)
            }
        }

        deserializer.deserialize_seq(Values(PhantomData))
    }
}

/// Read a bundle for this room. Of each session the key that reaches furthest back is left.
pub(super) fn read(json: &[u8], room: &RoomId) -> Result<Looked, HistoryRefusedReason> {
    let parts: Parts<'_> = serde_json::from_slice(json).map_err(|_| HistoryRefusedReason::Malformed)?;
    if parts.room_keys.more {
        return Err(HistoryRefusedReason::TooLarge);
    }
    let mut looked = Looked::default();
    let mut best: BTreeMap<String, (u32, HistoricRoomKey)> = BTreeMap::new();
    for raw in parts.room_keys.values {
        let key = serde_json::from_str::<HistoricRoomKey>(raw.get()).ok();
        let found = key.and_then(|key| Some((first_index(&key, room)?, key)));
        let Some((first_index, key)) = found else {
            looked.unusable += 1;
            continue;
        };
        if best.get(&key.session_id).is_none_or(|(known, _)| first_index < *known) {
            best.insert(key.session_id.clone(), (first_index, key));
        }
    }
    looked.keys = best.into_values().map(|(_, key)| key).collect();
    let withheld = parts.withheld.values.into_iter();
    let withheld = withheld.filter_map(|raw| serde_json::from_str::<RoomKeyWithheldContent>(raw.get()).ok());
    // What others would not give us, who offers the bundle does not know: only what he does not give himself.
    let withheld = withheld.filter(|entry| entry.withheld_code() == WithheldCode::HistoryNotShared);
    looked.withheld = withheld.filter(|entry| entry.room_id() == Some(room)).collect();
    Ok(looked)
}

/// The first message that a key opens. `None`: it is no key of this room, or of another session than it says.
fn first_index(key: &HistoricRoomKey, room: &RoomId) -> Option<u32> {
    if key.algorithm != EventEncryptionAlgorithm::MegolmV1AesSha2 || key.room_id != room {
        return None;
    }
    let session = InboundGroupSession::import(&key.session_key, SessionConfig::version_1());
    (session.session_id() == key.session_id).then(|| session.first_known_index())
}

#[cfg(test)]
mod tests {
    use matrix_sdk_crypto::vodozemac::{
        Curve25519PublicKey,
        megolm::{ExportedSessionKey, GroupSession},
    };
    use ruma::room_id;
    use serde_json::{Value, json};

    use super::*;

    fn key(room: &str, index: u32) -> (String, Value) {
        let session = GroupSession::new(SessionConfig::version_1());
        (
            session.session_id(),
            entry(room, &session.session_id(), &export(&session, index)),
        )
    }

    fn export(session: &GroupSession, index: u32) -> ExportedSessionKey {
        let mut inbound = InboundGroupSession::new(&session.session_key(), SessionConfig::version_1());
        inbound.export_at(index).unwrap()
    }

    fn entry(room: &str, session: &str, key: &ExportedSessionKey) -> Value {
        let curve = Curve25519PublicKey::from_bytes([7; 32]).to_base64();
        json!({
            "algorithm": "m.megolm.v1.aes-sha2", "room_id": room, "session_id": session, "sender_key": curve,
            "session_key": key.to_base64(), "sender_claimed_keys": {},
        })
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let (file, info) = seal(b"a bundle").unwrap();
        assert_eq!(open(&file.0, &info).unwrap().as_slice(), b"a bundle");
        for bit in 0..file.0.len() * 8 {
            let mut other = file.0.to_vec();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&other, &info).unwrap_err(), HistoryRefusedReason::Corrupt);
        }
        assert_eq!(open(&[], &info).unwrap_err(), HistoryRefusedReason::Corrupt);
    }

    #[test]
    fn one_unreadable_key_does_not_keep_the_others_away() {
        let room = room_id!("!r:s");
        let (good, entry) = key("!r:s", 0);
        let mut odd = key("!r:s", 0).1;
        odd["algorithm"] = "m.megolm.v2".into();
        let (_, mut renamed) = key("!r:s", 0);
        renamed["session_id"] = good.clone().into();
        let elsewhere = key("!other:s", 0).1;
        let keys = json!([1, null, "x", {}, odd, renamed, elsewhere, entry]);
        let looked = read(
            json!({"room_keys": keys, "withheld": [7, {}]}).to_string().as_bytes(),
            room,
        )
        .unwrap();
        assert_eq!((looked.keys.len(), looked.unusable, looked.withheld.len()), (1, 7, 0));
        assert_eq!(looked.keys[0].session_id, good);
    }

    #[test]
    fn of_two_keys_of_a_session_the_one_that_reaches_further_back_stays() {
        let session = GroupSession::new(SessionConfig::version_1());
        let entries: Vec<Value> = [5, 2, 9]
            .map(|index| entry("!r:s", &session.session_id(), &export(&session, index)))
            .into();
        let looked = read(json!({"room_keys": entries}).to_string().as_bytes(), room_id!("!r:s")).unwrap();
        assert_eq!(looked.keys.len(), 1);
        assert_eq!(first_index(&looked.keys[0], room_id!("!r:s")), Some(2));
    }

    #[test]
    fn garbage_is_no_bundle() {
        for garbage in [
            "",
            "7",
            "[]",
            "{}",
            "null",
            "{\"room_keys\": 7}",
            "{\"room_keys\": []",
            "\u{0}",
        ] {
            let refused = read(garbage.as_bytes(), room_id!("!r:s")).unwrap_err();
            assert_eq!(refused, HistoryRefusedReason::Malformed, "{garbage}");
        }
        let empty = read(b"{\"room_keys\": []}", room_id!("!r:s")).unwrap();
        assert!(empty.keys.is_empty());
    }

    #[test]
    fn many_small_values_are_too_large_and_cost_no_memory() {
        let zeros = vec!["0"; MOST_KEYS + 1].join(",");
        let refused = read(format!("{{\"room_keys\":[{zeros}]}}").as_bytes(), room_id!("!r:s")).unwrap_err();
        assert_eq!(refused, HistoryRefusedReason::TooLarge);
        let looked = read(
            format!("{{\"room_keys\":[],\"withheld\":[{zeros}]}}").as_bytes(),
            room_id!("!r:s"),
        )
        .unwrap();
        assert!(looked.withheld.is_empty());
    }

    #[test]
    fn who_offers_a_bundle_says_nothing_for_others() {
        let entry = |code: &str| {
            json!({
                "algorithm": "m.megolm.v1.aes-sha2", "room_id": "!r:s", "session_id": "s", "code": code,
                "sender_key": Curve25519PublicKey::from_bytes([7; 32]).to_base64(),
            })
        };
        let withheld = json!([
            entry("m.blacklisted"),
            entry("m.history_not_shared"),
            entry("io.element.msc4268.history_not_shared")
        ]);
        let looked = read(
            json!({"room_keys": [], "withheld": withheld}).to_string().as_bytes(),
            room_id!("!r:s"),
        )
        .unwrap();
        assert!(!looked.withheld.is_empty());
        assert!(
            looked
                .withheld
                .iter()
                .all(|entry| entry.withheld_code() == WithheldCode::HistoryNotShared)
        );
    }
}
