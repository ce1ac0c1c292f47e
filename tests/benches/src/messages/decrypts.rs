//! Events of rooms, of few and of many sessions. Ours are synced, delivered and acknowledged.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_trait::async_trait;
use matrix_sdk_crypto::{
    DecryptionSettings, TrustRequirement,
    vodozemac::{
        base64_encode,
        megolm::{GroupSession, InboundGroupSession, MegolmMessage, SessionConfig},
    },
};
use ruma::{RoomId, room_id, serde::Raw};
use serde_json::{Value, json};

use super::{
    Batch, Column,
    crowd::{Crowd, Peer, Receiver},
    intakes,
    line::Line,
    ours::Ours,
    stack::Stack,
};

/// How many events a sync brings.
const A_SYNC: usize = 100;

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decrypts {
    pub(crate) events: usize,
    /// The events are of these in turn.
    pub(crate) sessions: usize,
}

impl Decrypts {
    pub(crate) async fn prepare(self, column: Column) -> anyhow::Result<Box<dyn Batch>> {
        let line = Line::new(&Arc::new(Crowd::new(0)?), BTreeMap::new());
        let speaker = Speaker::new(self.sessions)?;
        Ok(match column {
            Column::Floor => {
                let made = speaker.sessions.iter();
                let sessions = made.map(|session| InboundGroupSession::new(&session.session_key(), config()));
                Box::new(Floor {
                    of: self,
                    sessions: sessions.collect(),
                    speaker,
                })
            }
            Column::Ours => {
                let ours = Ours::new(line).await?;
                for keys in speaker.room_keys(&ours.line.receiver()?)?.chunks(A_SYNC) {
                    ours.line.tell(json!({"to_device": {"events": keys}}));
                    ours.device.sync(Duration::ZERO).await?;
                }
                Box::new(OfOurs {
                    of: self,
                    speaker,
                    ours,
                })
            }
            Column::Stack => {
                let stack = Stack::new(line).await?;
                for keys in speaker.room_keys(&stack.line.receiver()?)?.chunks(A_SYNC) {
                    stack.take(keys).await?;
                }
                Box::new(OfStack {
                    of: self,
                    speaker,
                    stack,
                })
            }
        })
    }
}

fn config() -> SessionConfig {
    SessionConfig::version_1()
}

fn room() -> &'static RoomId {
    room_id!("!room:example.org")
}

/// Somebody who says things.
struct Speaker {
    peer: Peer,
    sessions: Vec<GroupSession>,
    said: usize,
}

impl Speaker {
    fn new(sessions: usize) -> anyhow::Result<Self> {
        Ok(Self {
            peer: Peer::new("@peer:example.org".try_into()?, "PEER".into())?,
            sessions: (0..sessions).map(|_| GroupSession::new(config())).collect(),
            said: 0,
        })
    }

    /// The keys of all sessions, over one Olm session.
    fn room_keys(&self, receiver: &Receiver) -> anyhow::Result<Vec<Value>> {
        let mut olm = self.peer.session_with(receiver)?;
        let mut events = Vec::new();
        for session in &self.sessions {
            let content = intakes::room_key(room(), session);
            events.push(self.peer.to_device(&mut olm, receiver, "m.room_key", &content)?);
        }
        Ok(events)
    }

    /// So many more events.
    fn says(&mut self, count: usize) -> anyhow::Result<Vec<Value>> {
        let of_sessions = self.sessions.len();
        let mut events = Vec::new();
        for _ in 0..count {
            self.said += 1;
            let place = self.said % of_sessions;
            let session = self.sessions.get_mut(place).context("there is a session")?;
            let payload = json!({
                "type": "m.room.message", "room_id": room(),
                "content": {"msgtype": "m.text", "body": "x".repeat(100)},
            });
            let encrypted = session.encrypt(payload.to_string());
            events.push(json!({
                "type": "m.room.encrypted", "sender": self.peer.user, "event_id": format!("$said{}", self.said),
                "origin_server_ts": 1_700_000_000_000_u64, "room_id": room(),
                "content": {
                    "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": base64_encode(encrypted.to_bytes()),
                    "session_id": session.session_id(), "device_id": self.peer.device,
                    "sender_key": self.peer.account.curve25519_key().to_base64(),
                },
            }));
        }
        Ok(events)
    }
}

struct Floor {
    of: Decrypts,
    speaker: Speaker,
    sessions: Vec<InboundGroupSession>,
}

#[async_trait]
impl Batch for Floor {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let first = self.speaker.said + 1;
        let events: Vec<String> = self
            .speaker
            .says(self.of.events)?
            .iter()
            .map(Value::to_string)
            .collect();
        let begun = Instant::now();
        let count = self.sessions.len();
        for (number, event) in events.iter().enumerate() {
            let event: Value = serde_json::from_str(event)?;
            let message = MegolmMessage::from_base64(event["content"]["ciphertext"].as_str().unwrap_or_default())?;
            let session = self
                .sessions
                .get_mut((first + number) % count)
                .context("there is a session")?;
            let payload: Value = serde_json::from_slice(&session.decrypt(&message)?.plaintext)?;
            black_box(payload);
        }
        Ok(begun.elapsed())
    }
}

struct OfOurs {
    of: Decrypts,
    speaker: Speaker,
    ours: Ours,
}

#[async_trait]
impl Batch for OfOurs {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let events = self.speaker.says(self.of.events)?;
        for events in events.chunks(A_SYNC) {
            let timeline = json!({"events": events, "limited": false});
            let sync = json!({"rooms": {"join": {room().as_str(): {"timeline": timeline}}}});
            self.ours.line.tell(sync);
        }
        let begun = Instant::now();
        let mut read = 0;
        while read < self.of.events {
            self.ours.device.sync(Duration::ZERO).await?;
            let delivered = self.ours.device.inbox(None, 2 * A_SYNC).await?;
            let messages = delivered
                .iter()
                .filter(|delivery| matches!(delivery.event, mx_olm_orchestrator::Event::Message(_)));
            let count = messages.count();
            anyhow::ensure!(count > 0, "every sync brings messages");
            read += count;
            self.ours.device.acknowledge(&delivered).await?;
        }
        Ok(begun.elapsed())
    }
}

struct OfStack {
    of: Decrypts,
    speaker: Speaker,
    stack: Arc<Stack>,
}

#[async_trait]
impl Batch for OfStack {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let events = self.speaker.says(self.of.events)?;
        let events: Result<Vec<_>, _> = events
            .iter()
            .map(|event| Raw::new(event).map(Raw::cast_unchecked))
            .collect();
        let events = events?;
        let settings = DecryptionSettings {
            sender_device_trust_requirement: TrustRequirement::Untrusted,
        };
        let begun = Instant::now();
        for event in &events {
            black_box(self.stack.machine.decrypt_room_event(event, room(), &settings).await?);
        }
        Ok(begun.elapsed())
    }
}
