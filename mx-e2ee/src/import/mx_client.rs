//! The files of the R packages mx.client and mx.crypto, with every quirk that they have.

use std::{collections::BTreeMap, fs, path::Path};

use matrix_sdk_crypto::vodozemac::{
    Curve25519PublicKey, Ed25519PublicKey, PickleError,
    megolm::{InboundGroupSession, InboundGroupSessionPickle},
    olm::{AccountPickle, SessionPickle},
};
use mx_olm_orchestrator::{AdoptedDevice, AdoptedSession};
use mx_transport::AccessToken;
use ruma::{OwnedDeviceId, OwnedUserId, RoomId, UserId};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Found, ImportError, file, senders::FoundRoomKey};
use crate::Result;

/// `sessions.json` is no larger: some 200,000 room keys.
const MOST_BYTES: u64 = 128 << 20;
/// Nothing else is larger.
const MOST_BYTES_OF_OTHERS: u64 = 1 << 20;

/// `matrix.json`. What else is in it is not ours.
#[derive(Deserialize)]
struct Config {
    server: String,
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    token: Zeroizing<String>,
    #[serde(default, deserialize_with = "known")]
    sync_token: Option<String>,
}

/// `sessions.json`. Its `megolm_out` is not taken.
#[derive(Default, Deserialize)]
struct Sessions {
    #[serde(default, deserialize_with = "map")]
    olm: BTreeMap<String, Zeroizing<String>>,
    #[serde(default, deserialize_with = "map")]
    olm_in: BTreeMap<String, Zeroizing<String>>,
    #[serde(default, deserialize_with = "map")]
    megolm_in: BTreeMap<String, RoomKey>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RoomKey {
    /// As versions before 0.2.0 wrote it: nobody knows whose it is.
    Bare(Zeroizing<String>),
    Known {
        session: Zeroizing<String>,
        #[serde(default, deserialize_with = "known")]
        sender: Option<String>,
        #[serde(default, deserialize_with = "known")]
        sender_ed25519: Option<String>,
        /// The device keys said the same when the key came.
        #[serde(default)]
        sender_bound: Option<Value>,
    },
}

/// R writes an empty list where a map has no entries.
fn map<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<T> {
        Map(BTreeMap<String, T>),
        Empty([(); 0]),
        Nothing(()),
    }
    Ok(match Written::<T>::deserialize(deserializer)? {
        Written::Map(map) => map,
        Written::Empty([]) | Written::Nothing(()) => BTreeMap::new(),
    })
}

/// R's NA is `null`, or the text.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let written: Option<String> = Option::deserialize(deserializer)?;
    Ok(written.filter(|text| text != "NA" && !text.is_empty()))
}

/// Read all of it, or nothing.
pub(super) fn read(store: &Path, config: &Path) -> Result<Found> {
    let key = pickle_key(&store.join("pickle.key"))?;
    let account = account(&store.join("account.pickle"), &key)?;
    let sessions = sessions(&store.join("sessions.json"))?;
    let login: Config = json(config, MOST_BYTES_OF_OTHERS)?;
    let token = AccessToken::new(login.token.as_str()).map_err(|_| foreign(config, "its token is none"))?;

    let mut device = AdoptedDevice::new(login.user_id, login.device_id, account);
    device.since = login.sync_token;
    let path = store.join("sessions.json");
    // Those that have received come last: it is they that both ends know to work.
    for (curve25519, pickle) in sessions.olm.iter().chain(&sessions.olm_in) {
        let unusable = || foreign(&path, "an Olm session cannot be opened with pickle.key");
        device.sessions.push(AdoptedSession {
            curve25519: Curve25519PublicKey::from_base64(curve25519).map_err(|_| unusable())?,
            pickle: SessionPickle::from_encrypted(pickle, &key).map_err(|_| unusable())?,
        });
    }
    let mut room_keys = Vec::new();
    let mut left_out = 0;
    for (name, written) in &sessions.megolm_in {
        let key =
            room_key(name, written, &key).map_err(|_| foreign(&path, "a room key cannot be opened with pickle.key"))?;
        match key {
            Some(key) => room_keys.push(key),
            None => left_out += 1,
        }
    }
    Ok(Found {
        device,
        homeserver: login.server,
        token,
        room_keys,
        room_keys_left_out: left_out,
    })
}

/// That client keeps a key under the names that whoever gave it says, of a session and of a room: `None` is one that is
/// another's, which anybody could have given it.
fn room_key(name: &str, written: &RoomKey, key: &[u8; 32]) -> Result<Option<FoundRoomKey>, PickleError> {
    let (pickle, sender, ed25519, is_bound) = match written {
        RoomKey::Bare(pickle) => (pickle, None, None, false),
        RoomKey::Known {
            session,
            sender,
            sender_ed25519,
            sender_bound,
        } => (
            session,
            sender.as_deref(),
            sender_ed25519.as_deref(),
            matches!(sender_bound, Some(Value::Bool(true))),
        ),
    };
    let opened = InboundGroupSession::from_pickle(InboundGroupSessionPickle::from_encrypted(pickle, key)?);
    let Some((room, session)) = name.rsplit_once('|') else {
        return Ok(None);
    };
    let Ok(room_id) = RoomId::parse(room) else {
        return Ok(None);
    };
    if opened.session_id() != session {
        return Ok(None);
    }
    let claimed = ed25519.and_then(|key| Ed25519PublicKey::from_base64(key).ok());
    let sender = sender.and_then(|user| UserId::parse(user).ok());
    Ok(Some(FoundRoomKey {
        room_id,
        pickle: opened.pickle(),
        sender: sender.zip(claimed).filter(|_| is_bound),
        claimed,
    }))
}

fn account(path: &Path, key: &[u8; 32]) -> Result<AccountPickle> {
    let text = file::read(path, MOST_BYTES_OF_OTHERS)?;
    let text = std::str::from_utf8(&text).map_err(|_| foreign(path, "it is no text"))?;
    Ok(AccountPickle::from_encrypted(text.trim(), key)
        .map_err(|_| foreign(path, "it cannot be opened with pickle.key"))?)
}

fn pickle_key(path: &Path) -> Result<Zeroizing<[u8; 32]>> {
    let bytes = file::read(path, MOST_BYTES_OF_OTHERS)?;
    let key = <[u8; 32]>::try_from(bytes.as_slice());
    Ok(Zeroizing::new(key.map_err(|_| {
        foreign(path, &format!("it has {} bytes, and not 32", bytes.len()))
    })?))
}

/// A device that never met another one has no sessions.
fn sessions(path: &Path) -> Result<Sessions> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Sessions::default());
    }
    json(path, MOST_BYTES)
}

/// Its errors would quote what is in the file.
fn json<T: DeserializeOwned>(path: &Path, most_bytes: u64) -> Result<T> {
    let bytes = file::read(path, most_bytes)?;
    let read = serde_json::from_slice(&bytes);
    Ok(read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        foreign(
            path,
            &format!("something is missing or wrong at line {line}, column {column}"),
        )
    })?)
}

fn foreign(path: &Path, what: &str) -> ImportError {
    ImportError::Foreign {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}
