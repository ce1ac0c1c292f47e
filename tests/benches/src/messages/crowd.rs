//! Devices of other people, with real keys: what a homeserver says of them, and what they send.

use std::{collections::BTreeMap, thread};

use anyhow::Context as _;
use matrix_sdk_crypto::vodozemac::{
    Curve25519PublicKey,
    olm::{Account, Session, SessionConfig},
};
use ruma::{CanonicalJsonValue, OwnedDeviceId, OwnedUserId};
use serde_json::{Value, json};

/// Somebody's device.
pub(crate) struct Peer {
    pub(crate) user: OwnedUserId,
    pub(crate) device: OwnedDeviceId,
    pub(crate) account: Account,
    /// As `/keys/query` has it.
    pub(crate) device_keys: Value,
    /// As `/keys/claim` has it, under its id. Nobody minds here that it is given out again.
    pub(crate) one_time_key: Value,
}

impl Peer {
    pub(crate) fn new(user: OwnedUserId, device: OwnedDeviceId) -> anyhow::Result<Self> {
        let mut account = Account::new();
        let keys = json!({
            format!("curve25519:{device}"): account.curve25519_key().to_base64(),
            format!("ed25519:{device}"): account.ed25519_key().to_base64(),
        });
        let unsigned = json!({
            "user_id": user,
            "device_id": device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": keys,
        });
        let device_keys = signed(&account, &user, &device, unsigned)?;
        account.generate_one_time_keys(1);
        let key = account.one_time_keys().into_values().next().context("a key was made")?;
        let one_time_key = signed(&account, &user, &device, json!({"key": key.to_base64()}))?;
        account.mark_keys_as_published();
        Ok(Self {
            user,
            device,
            account,
            device_keys,
            one_time_key,
        })
    }

    /// A new Olm session with a device, by any of its one-time or fallback keys.
    pub(crate) fn session_with(&self, receiver: &Receiver) -> anyhow::Result<Session> {
        let (identity, key) = (receiver.curve25519, receiver.key);
        Ok(self
            .account
            .create_outbound_session(SessionConfig::version_1(), identity, key)?)
    }

    /// A to-device event with this content inside.
    pub(crate) fn to_device(
        &self,
        session: &mut Session,
        receiver: &Receiver,
        event_type: &str,
        content: &Value,
    ) -> anyhow::Result<Value> {
        let payload = json!({
            "type": event_type,
            "content": content,
            "sender": self.user,
            "recipient": receiver.user,
            "recipient_keys": {"ed25519": receiver.ed25519},
            "keys": {"ed25519": self.account.ed25519_key().to_base64()},
        });
        let message = session.encrypt(payload.to_string())?;
        let (kind, body) = message.to_parts();
        Ok(json!({
            "type": "m.room.encrypted",
            "sender": self.user,
            "content": {
                "algorithm": "m.olm.v1.curve25519-aes-sha2",
                "sender_key": self.account.curve25519_key().to_base64(),
                "ciphertext": {
                    receiver.curve25519.to_base64(): {
                        "type": kind,
                        "body": matrix_sdk_crypto::vodozemac::base64_encode(body),
                    },
                },
            },
        }))
    }
}

/// The device that is measured, as others see it.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) user: OwnedUserId,
    pub(crate) curve25519: Curve25519PublicKey,
    pub(crate) ed25519: String,
    /// Its fallback key: it may be used again and again.
    pub(crate) key: Curve25519PublicKey,
}

fn signed(account: &Account, user: &OwnedUserId, device: &OwnedDeviceId, mut object: Value) -> anyhow::Result<Value> {
    let canonical = CanonicalJsonValue::try_from(object.clone())?.to_string();
    let signature = account.sign(canonical.as_bytes()).to_base64();
    object["signatures"] = json!({user.as_str(): {format!("ed25519:{device}"): signature}});
    Ok(object)
}

/// Many devices, two a user.
pub(crate) struct Crowd {
    pub(crate) peers: Vec<Peer>,
    by_user: BTreeMap<OwnedUserId, Vec<usize>>,
}

impl Crowd {
    pub(crate) fn new(devices: usize) -> anyhow::Result<Self> {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let share = devices.div_ceil(workers).max(1);
        let made: anyhow::Result<Vec<Vec<Peer>>> = thread::scope(|scope| {
            let work: Vec<_> = (0..workers)
                .map(|worker| {
                    let numbers = worker * share..devices.min((worker + 1) * share);
                    scope.spawn(move || numbers.map(numbered).collect())
                })
                .collect();
            let joined = work
                .into_iter()
                .map(|work| work.join().ok().context("a worker ended early")?);
            joined.collect()
        });
        let peers: Vec<Peer> = made?.into_iter().flatten().collect();
        let mut by_user: BTreeMap<OwnedUserId, Vec<usize>> = BTreeMap::new();
        for (place, peer) in peers.iter().enumerate() {
            by_user.entry(peer.user.clone()).or_default().push(place);
        }
        Ok(Self { peers, by_user })
    }

    /// The first so many devices.
    pub(crate) fn first(&self, devices: usize) -> &[Peer] {
        self.peers.get(..devices).unwrap_or(&self.peers)
    }

    /// Whose the first so many devices are.
    pub(crate) fn users(&self, devices: usize) -> Vec<OwnedUserId> {
        let mut users: Vec<OwnedUserId> = self.first(devices).iter().map(|peer| peer.user.clone()).collect();
        users.dedup();
        users
    }

    pub(crate) fn of_user(&self, user: &str) -> impl Iterator<Item = &Peer> {
        let user = OwnedUserId::try_from(user).ok();
        let places = user.and_then(|user| self.by_user.get(&user)).into_iter().flatten();
        places.filter_map(|place| self.peers.get(*place))
    }
}

fn numbered(number: usize) -> anyhow::Result<Peer> {
    let user = OwnedUserId::try_from(format!("@member{}:example.org", number / 2))?;
    Peer::new(user, OwnedDeviceId::from(format!("DEVICE{number:05}")))
}
