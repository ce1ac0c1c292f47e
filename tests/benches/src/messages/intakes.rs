//! Room keys that come in one sync, each over an Olm session that is new.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_trait::async_trait;
use matrix_sdk_crypto::vodozemac::{
    Curve25519PublicKey, base64_decode,
    megolm::{GroupSession, InboundGroupSession, SessionConfig, SessionKey},
    olm::{Account, OlmMessage, SessionConfig as OlmConfig},
};
use ruma::{RoomId, room_id};
use serde_json::{Value, json};

use super::{
    Batch, Column,
    crowd::{Crowd, Peer, Receiver},
    line::Line,
    ours::Ours,
    stack::Stack,
};

/// How many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intakes {
    pub(crate) keys: usize,
}

impl Intakes {
    pub(crate) async fn prepare(self, column: Column) -> anyhow::Result<Box<dyn Batch>> {
        let line = Line::new(&Arc::new(Crowd::new(0)?), BTreeMap::new());
        Ok(match column {
            Column::Floor => {
                let mut account = Account::new();
                account.generate_fallback_key();
                Box::new(Floor { of: self, account })
            }
            Column::Ours => Box::new(OfOurs {
                of: self,
                ours: Ours::new(line).await?,
                number: 0,
            }),
            Column::Stack => Box::new(OfStack {
                of: self,
                stack: Stack::new(line).await?,
                number: 0,
            }),
        })
    }

    /// A key from each of so many people who never wrote before.
    fn events(self, receiver: &Receiver, number: &mut usize) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        for _ in 0..self.keys {
            *number += 1;
            let user = format!("@stranger{number}:example.org");
            let peer = Peer::new(user.as_str().try_into()?, "STRANGER".into())?;
            let session = GroupSession::new(SessionConfig::version_1());
            let content = room_key(room_id!("!room:example.org"), &session);
            let mut olm = peer.session_with(receiver)?;
            events.push(peer.to_device(&mut olm, receiver, "m.room_key", &content)?);
        }
        Ok(events)
    }
}

/// The content of `m.room_key`.
pub(crate) fn room_key(room: &RoomId, session: &GroupSession) -> Value {
    json!({
        "algorithm": "m.megolm.v1.aes-sha2", "room_id": room,
        "session_id": session.session_id(), "session_key": session.session_key().to_base64(),
    })
}

struct Floor {
    of: Intakes,
    account: Account,
}

#[async_trait]
impl Batch for Floor {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let key = self
            .account
            .fallback_key()
            .into_values()
            .next()
            .context("a fallback key")?;
        let receiver = Receiver {
            user: "@bot:example.org".try_into()?,
            curve25519: self.account.curve25519_key(),
            ed25519: self.account.ed25519_key().to_base64(),
            key,
        };
        let events = self.of.events(&receiver, &mut 0)?;
        let events: Vec<String> = events.iter().map(Value::to_string).collect();
        let own = receiver.curve25519.to_base64();
        let begun = Instant::now();
        for event in &events {
            let event: Value = serde_json::from_str(event)?;
            let content = &event["content"];
            let body = content["ciphertext"][&own]["body"]
                .as_str()
                .context("a ciphertext for us")?;
            let OlmMessage::PreKey(message) = OlmMessage::from_parts(0, &base64_decode(body)?)? else {
                anyhow::bail!("it begins a session");
            };
            let sender = Curve25519PublicKey::from_base64(content["sender_key"].as_str().unwrap_or_default())?;
            let made = self
                .account
                .create_inbound_session(OlmConfig::version_1(), sender, &message)?;
            let payload: Value = serde_json::from_slice(&made.plaintext)?;
            let key = payload["content"]["session_key"].as_str().context("a room key")?;
            let key = SessionKey::from_base64(key)?;
            black_box(InboundGroupSession::new(&key, SessionConfig::version_1()));
        }
        Ok(begun.elapsed())
    }
}

struct OfOurs {
    of: Intakes,
    ours: Ours,
    number: usize,
}

#[async_trait]
impl Batch for OfOurs {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let events = self.of.events(&self.ours.line.receiver()?, &mut self.number)?;
        self.ours.line.tell(json!({"to_device": {"events": events}}));
        let begun = Instant::now();
        let summary = self.ours.device.sync(Duration::ZERO).await?;
        let taken = begun.elapsed();
        anyhow::ensure!(summary.to_device_rejected == 0, "{summary:?}");
        Ok(taken)
    }
}

struct OfStack {
    of: Intakes,
    stack: Arc<Stack>,
    number: usize,
}

#[async_trait]
impl Batch for OfStack {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let events = self.of.events(&self.stack.line.receiver()?, &mut self.number)?;
        let begun = Instant::now();
        self.stack.take(&events).await?;
        Ok(begun.elapsed())
    }
}
