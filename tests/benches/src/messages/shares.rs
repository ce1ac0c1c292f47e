//! A room key to devices that were never heard of: query, claim, share, deliver, mark; and the message.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_trait::async_trait;
use matrix_sdk_crypto::vodozemac::{
    Curve25519PublicKey, Ed25519PublicKey, Ed25519Signature,
    megolm::{GroupSession, SessionConfig},
    olm,
};
use ruma::{CanonicalJsonValue, OwnedRoomId, room_id};
use serde_json::{Value, json};

use super::{
    Batch, Column,
    crowd::{Crowd, Peer},
    line::Line,
    ours::Ours,
    stack::Stack,
};

/// To whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    pub(crate) devices: usize,
}

impl Shares {
    /// Each batch has a device of its own: everybody is new to it.
    pub(crate) fn prepare(self, crowd: &Arc<Crowd>, column: Column) -> anyhow::Result<Box<dyn Batch>> {
        let of = Of {
            crowd: Arc::clone(crowd),
            devices: self.devices,
        };
        Ok(match column {
            Column::Floor => Box::new(Floor(of)),
            Column::Ours => Box::new(OfOurs(of)),
            Column::Stack => Box::new(OfStack(of)),
        })
    }
}

struct Of {
    crowd: Arc<Crowd>,
    devices: usize,
}

impl Of {
    fn room() -> OwnedRoomId {
        room_id!("!room:example.org").to_owned()
    }

    fn line(&self) -> Line {
        let rooms = BTreeMap::from([(Self::room(), self.crowd.users(self.devices))]);
        Line::new(&self.crowd, rooms)
    }
}

struct Floor(Of);

/// Whether the device's own signature is under an object.
fn checked(object: &Value, peer: &Peer, key: &Ed25519PublicKey) -> anyhow::Result<()> {
    let mut object = object.clone();
    let fields = object.as_object_mut().context("it is an object")?;
    let signatures = fields.remove("signatures").context("it is signed")?;
    let signature = signatures[peer.user.as_str()][format!("ed25519:{}", peer.device)].as_str();
    let signature = Ed25519Signature::from_base64(signature.context("it is signed by the device")?)?;
    let canonical = CanonicalJsonValue::try_from(object)?.to_string();
    Ok(key.verify(canonical.as_bytes(), &signature)?)
}

#[async_trait]
impl Batch for Floor {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let account = olm::Account::new();
        let begun = Instant::now();
        let mut room_key = GroupSession::new(SessionConfig::version_1());
        for peer in self.0.crowd.first(self.0.devices) {
            let key = |algorithm: &str| peer.device_keys["keys"][format!("{algorithm}:{}", peer.device)].as_str();
            let ed25519 = Ed25519PublicKey::from_base64(key("ed25519").context("an Ed25519 key")?)?;
            let curve25519 = Curve25519PublicKey::from_base64(key("curve25519").context("a Curve25519 key")?)?;
            checked(&peer.device_keys, peer, &ed25519)?;
            checked(&peer.one_time_key, peer, &ed25519)?;
            let one_time_key = peer.one_time_key["key"].as_str().context("a one-time key")?;
            let one_time_key = Curve25519PublicKey::from_base64(one_time_key)?;
            let mut session =
                account.create_outbound_session(olm::SessionConfig::version_1(), curve25519, one_time_key)?;
            let payload = json!({
                "type": "m.room_key",
                "content": {
                    "algorithm": "m.megolm.v1.aes-sha2", "room_id": Of::room(),
                    "session_id": room_key.session_id(), "session_key": room_key.session_key().to_base64(),
                },
                "sender": "@bot:example.org", "recipient": peer.user,
                "recipient_keys": {"ed25519": ed25519.to_base64()}, "keys": {"ed25519": account.ed25519_key().to_base64()},
            });
            black_box(session.encrypt(payload.to_string())?.to_parts());
        }
        black_box(room_key.encrypt("x".repeat(100)));
        Ok(begun.elapsed())
    }
}

struct OfOurs(Of);

#[async_trait]
impl Batch for OfOurs {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let ours = Ours::new(self.0.line()).await?;
        let begun = Instant::now();
        ours.say(&Of::room()).await?;
        Ok(begun.elapsed())
    }
}

struct OfStack(Of);

#[async_trait]
impl Batch for OfStack {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let stack = Stack::new(self.0.line()).await?;
        let begun = Instant::now();
        stack.share(&Of::room(), &self.0.crowd.users(self.0.devices)).await?;
        stack.say(&Of::room()).await?;
        Ok(begun.elapsed())
    }
}
