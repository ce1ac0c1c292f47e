//! The store of matrix-nio (`SqliteStore`, versions 1 and 2): a database with the pickles of vodozemac, or of libolm before
//! version 0.26.

use std::path::Path;

use matrix_sdk_crypto::vodozemac::{
    Curve25519PublicKey, Ed25519PublicKey,
    megolm::{InboundGroupSession, InboundGroupSessionPickle},
    olm::{Account, AccountPickle, Session, SessionPickle},
};
use mx_olm_orchestrator::{AdoptedDevice, AdoptedSession};
use ruma::{RoomId, UserId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    Found, ImportLogin,
    database::{Copied, bytes},
    senders::FoundRoomKey,
};
use crate::Result;

/// What pickles are sealed with: a hash of the passphrase, or, by libolm, the passphrase.
struct Keys<'a> {
    hashed: Zeroizing<[u8; 32]>,
    passphrase: &'a str,
}

/// One kind of pickle, in both forms.
macro_rules! opened {
    ($keys:expr, $pickle:expr, $of:ty, $pickled:ty) => {{
        let text = std::str::from_utf8(&$pickle).ok();
        text.and_then(|text| {
            <$pickled>::from_encrypted(text, &$keys.hashed)
                .map(<$of>::from)
                .or_else(|_| <$of>::from_libolm_pickle(text, $keys.passphrase.as_bytes()))
                .ok()
        })
    }};
}

pub(super) fn read(database: &Path, passphrase: &str, login: ImportLogin) -> Result<Found> {
    let keys = Keys {
        hashed: Zeroizing::new(Sha256::digest(passphrase.as_bytes()).into()),
        passphrase,
    };
    let copied = Copied::of(database)?;
    let accounts = copied.rows("SELECT id, account, user_id, device_id FROM accounts", |row| {
        let (user, device): (String, String) = (row.get(2)?, row.get(3)?);
        Ok(Some((
            row.get::<_, i64>(0)?,
            Zeroizing::new(bytes(row, 1)?),
            user,
            device,
        )))
    })?;
    let [(account, pickle, user, device)] = accounts.as_slice() else {
        return Err(copied
            .foreign(&format!("it holds {} devices, and not one", accounts.len()))
            .into());
    };
    let user = UserId::parse(user).map_err(|_| copied.foreign("its user id is none"))?;
    let opened = opened!(keys, pickle, Account, AccountPickle)
        .ok_or_else(|| copied.foreign("its account cannot be opened with this pickle key"))?;
    let mut found = AdoptedDevice::new(user, device.as_str().into(), opened.pickle());
    found.sessions = sessions(&copied, *account, &keys)?;
    found.since = since(&copied, *account)?;
    Ok(Found {
        device: found,
        homeserver: login.homeserver,
        token: login.token,
        room_keys: room_keys(&copied, *account, &keys)?,
        room_keys_left_out: 0,
    })
}

/// Those that were used last come last, as nio chooses.
fn sessions(copied: &Copied, account: i64, keys: &Keys<'_>) -> Result<Vec<AdoptedSession>> {
    let query = format!(
        "SELECT sender_key, session FROM olmsessions WHERE account_id = {account} ORDER BY last_usage_date, creation_time"
    );
    copied.rows(&query, |row| {
        let (key, pickle): (String, _) = (row.get(0)?, Zeroizing::new(bytes(row, 1)?));
        let session = opened!(keys, pickle, Session, SessionPickle);
        let key = Curve25519PublicKey::from_base64(&key).ok();
        Ok(session.zip(key).map(|(session, curve25519)| AdoptedSession {
            curve25519,
            pickle: session.pickle(),
        }))
    })
}

/// Nobody knows whose they are: nio keeps beside a key that came from a key file whatever that file said, as beside one that
/// came from its sender.
fn room_keys(copied: &Copied, account: i64, keys: &Keys<'_>) -> Result<Vec<FoundRoomKey>> {
    let query =
        format!("SELECT session_id, room_id, fp_key, session FROM megolminboundsessions WHERE account_id = {account}");
    copied.rows(&query, |row| {
        let (id, room, claimed): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let pickle = Zeroizing::new(bytes(row, 3)?);
        let opened = opened!(keys, pickle, InboundGroupSession, InboundGroupSessionPickle);
        let opened = opened.filter(|opened| opened.session_id() == id);
        Ok(opened
            .zip(RoomId::parse(&room).ok())
            .map(|(opened, room_id)| FoundRoomKey {
                room_id,
                pickle: opened.pickle(),
                sender: None,
                claimed: Ed25519PublicKey::from_base64(&claimed).ok(),
            }))
    })
}

fn since(copied: &Copied, account: i64) -> Result<Option<String>> {
    let tables = copied.rows("SELECT name FROM sqlite_master WHERE name = 'synctokens'", |row| {
        row.get::<_, String>(0).map(Some)
    })?;
    if tables.is_empty() {
        return Ok(None);
    }
    let query = format!("SELECT token FROM synctokens WHERE account_id = {account}");
    let tokens = copied.rows(&query, |row| row.get::<_, String>(0).map(Some))?;
    Ok(tokens.into_iter().next())
}
