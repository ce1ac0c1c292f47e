//! Sends: into rooms of all sizes, one by one and many at once.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_trait::async_trait;
use matrix_sdk_crypto::{
    OlmMachine,
    olm::OutboundGroupSession,
    store::types::Changes,
    vodozemac::megolm::{GroupSession, SessionConfig},
};
use ruma::{RoomId, events::AnyMessageLikeEventContent, room_id, serde::Raw};
use tokio::task::JoinSet;

use super::{
    inputs::{MESSAGES_A_SESSION, message, outbound_session},
    reads::filled,
    rounds::Subject,
    variant::{Home, Store, Variant, commit},
};

/// What the engine encrypts for: one type of event.
const EVENT: &str = "m.room.message";

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Encrypted with the session at hand; the session saved.
    Save,
    /// By the protocol engine, one message a unit of work.
    Whole,
    /// So many tasks at once, each with a unit of work of its own.
    Tasks(u64),
    /// So many messages in one unit of work.
    Queued(u64),
}

impl How {
    /// How many messages one iteration sends.
    const fn messages(self) -> u64 {
        match self {
            Self::Save | Self::Whole => 1,
            Self::Tasks(messages) | Self::Queued(messages) => messages,
        }
    }
}

/// What vodozemac does for the messages: encrypt them, and write down where the ratchet is.
pub(crate) struct Floor {
    session: GroupSession,
    how: How,
}

impl Floor {
    pub(crate) fn new(how: How) -> Self {
        Self {
            session: GroupSession::new(SessionConfig::version_1()),
            how,
        }
    }
}

#[async_trait]
impl Subject for Floor {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let content = message()?;
        let started = Instant::now();
        for _ in 0..iterations * self.how.messages() {
            black_box(self.session.encrypt(content.json().get()));
            black_box(rmp_serde::to_vec_named(&self.session.pickle())?);
        }
        Ok(started.elapsed())
    }
}

/// A room whose key went to many devices.
pub(crate) struct Sends {
    store: Store,
    _home: Home,
    devices: usize,
    how: How,
    room: Option<Room>,
}

/// A session and what encrypts with it, until it has to be rotated.
struct Room {
    session: OutboundGroupSession,
    machine: OlmMachine,
    left: u64,
}

impl Sends {
    pub(crate) async fn new(variant: Variant, devices: usize, how: How) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = filled(variant, &home, &[]).await?;
        Ok(Self {
            store,
            _home: home,
            devices,
            how,
            room: None,
        })
    }

    async fn room(&mut self) -> anyhow::Result<&mut Room> {
        let used_up = self.room.as_ref().is_none_or(|room| room.left < self.how.messages());
        if used_up {
            let account = self.store.engine.load_account().await?.context("the account is gone")?;
            let session = outbound_session(account.static_data(), room_id(), self.devices)?;
            save(&self.store, &session).await?;
            self.room = Some(Room {
                session,
                machine: self.store.machine().await?,
                left: MESSAGES_A_SESSION,
            });
            // The first message loads the session from the store.
            self.send().await?;
        }
        self.room.as_mut().context("there is no room")
    }

    async fn send(&mut self) -> anyhow::Result<Duration> {
        let room = self.room.as_mut().context("there is no room")?;
        let content = message()?;
        room.left -= self.how.messages();
        let started = Instant::now();
        match self.how {
            How::Save => {
                black_box(room.session.encrypt(EVENT, &content).await);
                save(&self.store, &room.session).await?;
            }
            How::Whole => send(&self.store, &room.machine, &content).await?,
            How::Queued(messages) => {
                let unit = self.store.begin().await?;
                for _ in 0..messages {
                    black_box(room.machine.encrypt_room_event_raw(room_id(), EVENT, &content).await?);
                }
                commit(unit).await?;
            }
            How::Tasks(messages) => {
                let mut tasks = JoinSet::new();
                for _ in 0..messages {
                    let (store, machine, content) = (self.store.clone(), room.machine.clone(), content.clone());
                    tasks.spawn(async move { send(&store, &machine, &content).await });
                }
                while let Some(sent) = tasks.join_next().await {
                    sent??;
                }
            }
        }
        Ok(started.elapsed())
    }
}

#[async_trait]
impl Subject for Sends {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            self.room().await?;
            elapsed += self.send().await?;
        }
        Ok(elapsed)
    }
}

fn room_id() -> &'static RoomId {
    room_id!("!room:example.org")
}

async fn send(store: &Store, machine: &OlmMachine, content: &Raw<AnyMessageLikeEventContent>) -> anyhow::Result<()> {
    let unit = store.begin().await?;
    black_box(machine.encrypt_room_event_raw(room_id(), EVENT, content).await?);
    commit(unit).await
}

async fn save(store: &Store, session: &OutboundGroupSession) -> anyhow::Result<()> {
    let unit = store.begin().await?;
    let changes = Changes {
        outbound_group_sessions: vec![session.clone()],
        ..Changes::default()
    };
    store.engine.save_changes(changes).await?;
    commit(unit).await
}
