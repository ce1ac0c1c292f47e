//! The crypto store of matrix-rust-sdk (`matrix-sdk-sqlite`): a database of what this engine keeps, sealed or not.

use std::path::Path;

use matrix_sdk_crypto::{
    DeviceData, UserIdentityData,
    olm::{PickledAccount, PickledCrossSigningIdentity, PickledInboundGroupSession, PickledSession},
};
use matrix_sdk_store_encryption::StoreCipher;
use mx_olm_orchestrator::{AdoptedDevice, AdoptedSession};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use zeroize::Zeroizing;

use super::{
    Found, ImportLogin,
    database::{Copied, bytes},
};
use crate::Result;

/// The schemas whose rows are as they are read here. That of 0.18 is 17: its own `DATABASE_VERSION` says 15, and two more steps
/// follow it.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=17;

/// matrix-rust-sdk takes 200,000 of them for a passphrase.
const MOST_ROUNDS: u32 = 1_000_000;

/// How a store is sealed, as far as it says how much work opening it is.
#[derive(Deserialize)]
struct Sealed {
    kdf_info: Derivation,
    #[expect(dead_code, reason = "it has its place in what is written")]
    ciphertext_info: IgnoredAny,
}

#[derive(Deserialize)]
enum Derivation {
    None,
    Pbkdf2ToChaCha20Poly1305 {
        rounds: u32,
        #[expect(dead_code, reason = "it has its place in what is written")]
        kdf_salt: IgnoredAny,
    },
}

/// How often a passphrase is hashed, by the file: in either form that there is.
fn rounds(sealed: &[u8]) -> Option<u32> {
    let sealed: Option<Sealed> = rmp_serde::from_slice(sealed)
        .ok()
        .or_else(|| serde_json::from_slice(sealed).ok());
    match sealed?.kdf_info {
        Derivation::None => None,
        Derivation::Pbkdf2ToChaCha20Poly1305 { rounds, .. } => Some(rounds),
    }
}

/// A database, and what opens its values.
struct Store {
    copied: Copied,
    cipher: Option<StoreCipher>,
}

pub(super) fn read(directory: &Path, passphrase: Option<&str>, login: ImportLogin) -> Result<Found> {
    let store = Store::open(&directory.join("matrix-sdk-crypto.sqlite3"), passphrase)?;
    let account: PickledAccount = store
        .kept("account")?
        .ok_or_else(|| store.copied.foreign("there is no device in it"))?;
    let mut device = AdoptedDevice::new(account.user_id, account.device_id, account.pickle);
    let mut sessions: Vec<PickledSession> = store.all("SELECT data FROM session")?;
    sessions.sort_by_key(|session| session.creation_time);
    device.sessions = sessions
        .into_iter()
        .map(|session| AdoptedSession {
            curve25519: session.sender_key,
            pickle: session.pickle,
        })
        .collect();
    let mut room_keys: Vec<PickledInboundGroupSession> = store.all("SELECT data FROM inbound_group_session")?;
    for key in &mut room_keys {
        // In which backup they are is for the backup to say.
        key.backed_up = false;
    }
    device.kept_room_keys = room_keys;
    device.known.devices = store.all::<DeviceData>("SELECT data FROM device")?;
    device.known.identities = store.all::<UserIdentityData>("SELECT data FROM identity")?;
    device.identity = store.kept::<PickledCrossSigningIdentity>("identity")?;
    // Its token of a sync is perhaps one of sliding sync: what is new is looked for from the beginning.
    Ok(Found {
        device,
        homeserver: login.homeserver,
        token: login.token,
        room_keys: Vec::new(),
        room_keys_left_out: 0,
    })
}

impl Store {
    fn open(path: &Path, passphrase: Option<&str>) -> Result<Self> {
        let mut store = Self {
            copied: Copied::of(path)?,
            cipher: None,
        };
        let version = store.raw("version")?.map(|version| version.as_slice().first().copied());
        if !matches!(version, Some(Some(version)) if VERSIONS.contains(&u32::from(version))) {
            return Err(store
                .copied
                .foreign("its schema is none of those that are known here (up to that of version 0.18)")
                .into());
        }
        store.cipher = match (store.raw("cipher")?, passphrase) {
            (None, None) => None,
            (None, Some(_)) => return Err(store.copied.foreign("it is not sealed, and needs no passphrase").into()),
            (Some(_), None) => return Err(store.copied.foreign("it is sealed, and needs a passphrase").into()),
            (Some(sealed), Some(passphrase)) => {
                if rounds(&sealed).is_none_or(|rounds| rounds > MOST_ROUNDS) {
                    return Err(store
                        .copied
                        .foreign("it is not sealed as that client seals with a passphrase")
                        .into());
                }
                let cipher = StoreCipher::import(passphrase, &sealed);
                Some(cipher.map_err(|_| store.copied.foreign("it cannot be opened with this passphrase"))?)
            }
        };
        Ok(store)
    }

    fn raw(&self, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let rows = self.copied.rows("SELECT key, value FROM kv", |row| {
            Ok(Some((row.get::<_, String>(0)?, Zeroizing::new(bytes(row, 1)?))))
        })?;
        Ok(rows.into_iter().find(|(name, _)| name == key).map(|(_, value)| value))
    }

    fn kept<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.raw(key)? else { return Ok(None) };
        Ok(Some(self.opened(&value).ok_or_else(|| {
            self.copied.foreign("what it keeps under a name cannot be read")
        })?))
    }

    fn all<T: DeserializeOwned>(&self, query: &str) -> Result<Vec<T>> {
        self.copied
            .rows(query, |row| Ok(self.opened(&Zeroizing::new(bytes(row, 0)?))))
    }

    fn opened<T: DeserializeOwned>(&self, value: &[u8]) -> Option<T> {
        let Some(cipher) = &self.cipher else {
            return rmp_serde::from_slice(value).ok();
        };
        let sealed = rmp_serde::from_slice(value).ok()?;
        let opened = Zeroizing::new(cipher.decrypt_value_data(sealed).ok()?);
        rmp_serde::from_slice(&opened).ok()
    }
}
