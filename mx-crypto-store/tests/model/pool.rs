//! The values that the model writes: few, so that operations meet on the same rows, and the same in every run.
//!
//! # Why a file
//! A seed replays only if the keys are the same, since rows are ordered by their names. The keys in `pool.json` are
//! nobody's. `MX_MODEL_POOL=tests/model/pool.json cargo test -p mx-crypto-store --test model` makes new ones.
//!
//! Each call makes a value anew out of its text: the store under test and the reference never share an `Arc`.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use matrix_sdk_crypto::{
    Account, DeviceData, GossipRequest, SecretInfo, Session, UserIdentityData,
    olm::{
        IdentityKeys, InboundGroupSession, OlmMessageHash, OutboundGroupSession, PickledSession,
        PrivateCrossSigningIdentity,
    },
    store::types::{RoomKeyWithheldEntry, RoomPendingKeyBundleDetails, RoomSettings, StoredRoomKeyBundleData},
    types::DeviceKeys,
    vodozemac::Curve25519PublicKey,
};
use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedTransactionId, OwnedUserId, RoomId, UserId, events::secret::request::SecretName,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{json, value::RawValue};

/// Values as text.
pub(crate) type Texts = Vec<Box<RawValue>>;

/// What takes keys to make, and is therefore kept in a file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Three states of one account.
    pub(crate) accounts: Texts,
    /// The account of another device.
    pub(crate) foreign: Texts,
    pub(crate) identity_keys: Box<RawValue>,
    pub(crate) device_keys: Box<RawValue>,
    pub(crate) private_identities: Texts,
    pub(crate) sessions: Texts,
    pub(crate) inbound: Texts,
    pub(crate) outbound: Texts,
    pub(crate) devices: Texts,
    pub(crate) identities: Texts,
}

/// The pool.
pub(crate) struct Pool {
    kept: Kept,
    identity_keys: Arc<IdentityKeys>,
    device_keys: DeviceKeys,
    /// Where the inbound sessions are.
    pub(crate) inbound_ids: Vec<(OwnedRoomId, String)>,
    /// Who sent them.
    pub(crate) sender_keys: Vec<Curve25519PublicKey>,
    /// With whom there are Olm sessions.
    pub(crate) olm_senders: Vec<String>,
    pub(crate) device_ids: Vec<(OwnedUserId, OwnedDeviceId)>,
    users: Vec<OwnedUserId>,
}

pub(crate) const ROOMS: usize = 2;
pub(crate) const HASHES: usize = 3;
pub(crate) const REQUESTS: usize = 6;
pub(crate) const WITHHELD: usize = 4;
pub(crate) const SECRETS: usize = 4;
pub(crate) const BUNDLES: usize = 3;

fn read<T: DeserializeOwned>(text: &RawValue) -> T {
    serde_json::from_str(text.get()).unwrap()
}

/// The pool, read once.
pub(crate) fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let text = super::fresh::text().unwrap_or_else(|| include_str!("pool.json").to_owned());
        let kept: Kept = serde_json::from_str(&text).unwrap();
        let sessions: Vec<InboundGroupSession> = kept.inbound.iter().map(|text| inbound(text)).collect();
        let devices: Vec<DeviceData> = kept.devices.iter().map(|text| read(text)).collect();
        let identities: Vec<UserIdentityData> = kept.identities.iter().map(|text| read(text)).collect();
        let users = devices.iter().map(DeviceData::user_id);
        let users = users.chain(identities.iter().map(UserIdentityData::user_id));
        let olm: Vec<PickledSession> = kept.sessions.iter().map(|text| read(text)).collect();
        Pool {
            identity_keys: Arc::new(read(&kept.identity_keys)),
            device_keys: read(&kept.device_keys),
            inbound_ids: each(
                sessions
                    .iter()
                    .map(|one| (one.room_id().to_owned(), one.session_id().to_owned())),
            ),
            sender_keys: each(sessions.iter().map(|one| one.sender_key().to_bytes()))
                .into_iter()
                .map(Curve25519PublicKey::from_bytes)
                .collect(),
            olm_senders: each(olm.iter().map(|one| one.sender_key.to_base64())),
            device_ids: each(
                devices
                    .iter()
                    .map(|one| (one.user_id().to_owned(), one.device_id().to_owned())),
            ),
            users: each(users.map(ToOwned::to_owned)),
            kept,
        }
    })
}

fn each<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.collect::<BTreeSet<_>>().into_iter().collect()
}

fn inbound(text: &RawValue) -> InboundGroupSession {
    InboundGroupSession::from_pickle(read(text)).unwrap()
}

impl Pool {
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(crate) fn account(&self, index: usize) -> Account {
        Account::from_pickle(read(&self.kept.accounts[index])).unwrap()
    }

    pub(crate) fn foreign_account(&self) -> Account {
        Account::from_pickle(read(&self.kept.foreign[0])).unwrap()
    }

    pub(crate) fn private_identity(&self, index: usize) -> PrivateCrossSigningIdentity {
        PrivateCrossSigningIdentity::from_pickle(read(&self.kept.private_identities[index])).unwrap()
    }

    pub(crate) fn session(&self, index: usize) -> Session {
        Session::from_pickle(self.device_keys.clone(), read(&self.kept.sessions[index])).unwrap()
    }

    pub(crate) fn inbound(&self, index: usize) -> InboundGroupSession {
        inbound(&self.kept.inbound[index])
    }

    pub(crate) fn outbound(&self, index: usize) -> OutboundGroupSession {
        let keys = Arc::new(*self.identity_keys);
        OutboundGroupSession::from_pickle(own().1.into(), keys, read(&self.kept.outbound[index])).unwrap()
    }

    pub(crate) fn device(&self, index: usize) -> DeviceData {
        read(&self.kept.devices[index])
    }

    pub(crate) fn identity(&self, index: usize) -> UserIdentityData {
        read(&self.kept.identities[index])
    }
}

/// Whose store it is.
pub(crate) fn own() -> (&'static UserId, &'static str) {
    (ruma::user_id!("@alice:example.org"), "ALICE")
}

pub(crate) fn room(index: usize) -> &'static RoomId {
    [
        ruma::room_id!("!first:example.org"),
        ruma::room_id!("!second:example.org"),
    ][index]
}

pub(crate) fn users() -> &'static [OwnedUserId] {
    &pool().users
}

pub(crate) fn hash(index: usize) -> OlmMessageHash {
    let (sender_key, hash) = [("one", "hash"), ("one", "other"), ("two", "hash")][index];
    OlmMessageHash {
        sender_key: sender_key.to_owned(),
        hash: hash.to_owned(),
    }
}

fn key_info(room_index: usize) -> SecretInfo {
    let content = json!({ "KeyRequest": {
        "algorithm": "m.megolm.v1.aes-sha2",
        "room_id": room(room_index),
        "session_id": "session",
        "sender_key": Curve25519PublicKey::from_bytes([1; 32]).to_base64(),
    }});
    serde_json::from_value(content).unwrap()
}

/// Two requests for one thing, one request for two things, one that was sent, and requests for secrets.
pub(crate) fn request(index: usize) -> GossipRequest {
    let (id, info, sent_out) = match index {
        0 => (0, key_info(0), false),
        1 => (0, key_info(0), true),
        2 => (1, key_info(0), false),
        3 => (1, key_info(1), true),
        4 => (2, SecretName::RecoveryKey.into(), false),
        _ => (2, SecretName::CrossSigningMasterKey.into(), false),
    };
    GossipRequest {
        request_recipient: own().0.to_owned(),
        request_id: request_id(id),
        info,
        sent_out,
    }
}

pub(crate) fn request_id(index: usize) -> OwnedTransactionId {
    format!("request{index}").into()
}

pub(crate) fn withheld(index: usize) -> (OwnedRoomId, String, RoomKeyWithheldEntry) {
    let (room, session, code) = [
        (room(0), "one", "m.unverified"),
        (room(0), "one", "m.blacklisted"),
        (room(0), "two", "m.unverified"),
        (room(1), "one", "m.unauthorised"),
    ][index];
    let entry = json!({ "sender": own().0, "content": {
        "algorithm": "m.megolm.v1.aes-sha2",
        "room_id": room,
        "session_id": session,
        "sender_key": Curve25519PublicKey::from_bytes([1; 32]).to_base64(),
        "code": code,
        "reason": "a reason",
    }});
    (
        room.to_owned(),
        session.to_owned(),
        serde_json::from_value(entry).unwrap(),
    )
}

pub(crate) fn settings(index: usize) -> RoomSettings {
    RoomSettings {
        only_allow_trusted_devices: index == 1,
        session_rotation_period_messages: Some(index),
        ..RoomSettings::default()
    }
}

pub(crate) fn secret(index: usize) -> (SecretName, String) {
    let name = secret_name(index / 2);
    (name, format!("secret {}", index % 2))
}

pub(crate) fn secret_name(index: usize) -> SecretName {
    [SecretName::RecoveryKey, SecretName::CrossSigningMasterKey][index].clone()
}

/// Two bundles from one sender for one room, and one from another.
pub(crate) fn bundle(index: usize) -> StoredRoomKeyBundleData {
    let sender = users()[index / 2].clone();
    let bundle = json!({
        "sender_user": sender,
        "sender_key": Curve25519PublicKey::from_bytes([1; 32]),
        "sender_data": matrix_sdk_crypto::olm::SenderData::unknown(),
        "bundle_data": { "room_id": room(0), "file": {
            "v": "v2",
            "url": format!("mxc://example.org/bundle{index}"),
            "iv": "AAAAAAAAAAAAAAAAAAAAAA",
            "hashes": { "sha256": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" },
            "key": { "kty": "oct", "key_ops": ["encrypt", "decrypt"], "alg": "A256CTR", "ext": true,
                     "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" },
        }},
    });
    serde_json::from_value(bundle).unwrap()
}

pub(crate) fn pending(room_index: usize, value: usize) -> RoomPendingKeyBundleDetails {
    RoomPendingKeyBundleDetails {
        room_id: room(room_index).to_owned(),
        invite_accepted_at: ruma::MilliSecondsSinceUnixEpoch(ruma::uint!(1)),
        inviter: users()[value].clone(),
    }
}
