//! Messages into rooms whose key is there already.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::stream::{self, TryStreamExt};
use matrix_sdk_crypto::vodozemac::{
    base64_encode,
    megolm::{GroupSession, SessionConfig},
};
use ruma::OwnedRoomId;
use serde_json::json;

use super::{Batch, Column, crowd::Crowd, line::Line, ours::Ours, stack::Stack};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sends {
    pub(crate) messages: usize,
    pub(crate) rooms: usize,
    /// In each room.
    pub(crate) devices: usize,
    /// How many sends are under way at once.
    pub(crate) at_once: usize,
}

impl Sends {
    pub(crate) async fn prepare(self, crowd: &Arc<Crowd>, column: Column) -> anyhow::Result<Box<dyn Batch>> {
        let users = crowd.users(self.devices);
        let names: anyhow::Result<Vec<OwnedRoomId>> = (0..self.rooms)
            .map(|number| Ok(OwnedRoomId::try_from(format!("!room{number}:example.org"))?))
            .collect();
        let names = names?;
        let rooms: BTreeMap<_, _> = names.iter().map(|room| (room.clone(), users.clone())).collect();
        let line = Line::new(crowd, rooms);
        Ok(match column {
            Column::Floor => Box::new(Floor {
                sends: self,
                sessions: names
                    .iter()
                    .map(|_| GroupSession::new(SessionConfig::version_1()))
                    .collect(),
                rooms: names,
            }),
            Column::Ours => {
                let ours = Ours::new(line).await?;
                for room in &names {
                    ours.say(room).await?;
                }
                Box::new(OfOurs {
                    sends: self,
                    rooms: names,
                    ours,
                })
            }
            Column::Stack => {
                let stack = Stack::new(line).await?;
                for room in &names {
                    stack.share(room, &users).await?;
                }
                Box::new(OfStack {
                    sends: self,
                    rooms: names,
                    stack,
                })
            }
        })
    }

    /// The rooms in turn, one for each message.
    fn turns(self, rooms: &[OwnedRoomId]) -> Vec<OwnedRoomId> {
        rooms.iter().cycle().take(self.messages).cloned().collect()
    }
}

struct Floor {
    sends: Sends,
    rooms: Vec<OwnedRoomId>,
    sessions: Vec<GroupSession>,
}

#[async_trait]
impl Batch for Floor {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let count = self.sessions.len();
        for number in 0..self.sends.messages {
            let place = number % count;
            let (Some(room), Some(session)) = (self.rooms.get(place), self.sessions.get_mut(place)) else {
                continue;
            };
            let content = json!({"msgtype": "m.text", "body": "x".repeat(100)});
            let payload = json!({"type": "m.room.message", "room_id": room, "content": content});
            let encrypted = session.encrypt(payload.to_string());
            let event = json!({
                "algorithm": "m.megolm.v1.aes-sha2",
                "ciphertext": base64_encode(encrypted.to_bytes()),
                "session_id": session.session_id(),
                "sender_key": "", "device_id": "",
            });
            black_box(event.to_string());
        }
        Ok(begun.elapsed())
    }
}

struct OfOurs {
    sends: Sends,
    rooms: Vec<OwnedRoomId>,
    ours: Ours,
}

#[async_trait]
impl Batch for OfOurs {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let ours = &self.ours;
        let saying = self.sends.turns(&self.rooms).into_iter();
        stream::iter(saying.map(Ok))
            .try_for_each_concurrent(self.sends.at_once, |room| async move { ours.say(&room).await })
            .await?;
        Ok(begun.elapsed())
    }
}

struct OfStack {
    sends: Sends,
    rooms: Vec<OwnedRoomId>,
    stack: Arc<Stack>,
}

#[async_trait]
impl Batch for OfStack {
    async fn run(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let stack = &self.stack;
        let saying = self.sends.turns(&self.rooms).into_iter();
        stream::iter(saying.map(Ok))
            .try_for_each_concurrent(self.sends.at_once, |room| async move { stack.say(&room).await })
            .await?;
        Ok(begun.elapsed())
    }
}
