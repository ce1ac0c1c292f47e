//! Reads: the account, and the sessions that decrypting asks for.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use async_trait::async_trait;
use matrix_sdk_crypto::{
    olm::{InboundGroupSession, SenderDataType},
    vodozemac::Curve25519PublicKey,
};

use super::{
    inputs::SESSIONS_A_SENDER,
    rounds::Subject,
    variant::{Home, Store, Variant},
};

/// A store with sessions in it.
pub(crate) async fn filled(variant: Variant, home: &Home, sessions: &[InboundGroupSession]) -> anyhow::Result<Store> {
    let store = variant.open(home).await?;
    store.machine().await?;
    for some in sessions.chunks(1_000) {
        store.engine.save_inbound_group_sessions(some.to_vec(), None).await?;
    }
    Ok(store)
}

/// The account.
pub(crate) struct Account {
    store: Store,
    _home: Home,
}

impl Account {
    pub(crate) async fn new(variant: Variant) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = filled(variant, &home, &[]).await?;
        Ok(Self { store, _home: home })
    }
}

#[async_trait]
impl Subject for Account {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let started = Instant::now();
        for _ in 0..iterations {
            black_box(self.store.engine.load_account().await?.context("the account is gone")?);
        }
        Ok(started.elapsed())
    }
}

/// Sessions that the store holds, one after the other, as decryptions ask for them.
pub(crate) struct Sessions {
    variant: Variant,
    home: Home,
    store: Option<Store>,
    sessions: Vec<InboundGroupSession>,
    /// How many of them are asked for, in turn.
    turn: usize,
    next: usize,
    /// Open the store again before each of them is asked for a second time.
    cold: bool,
}

impl Sessions {
    pub(crate) async fn new(
        variant: Variant,
        sessions: &[InboundGroupSession],
        turn: usize,
        cold: bool,
    ) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = filled(variant, &home, sessions).await?;
        let mut this = Self {
            variant,
            home,
            store: Some(store),
            sessions: sessions.to_vec(),
            turn,
            next: 0,
            cold,
        };
        this.reopen().await?;
        if !cold {
            let turn = u64::try_from(turn)?;
            this.run(turn).await?;
        }
        Ok(this)
    }

    async fn reopen(&mut self) -> anyhow::Result<()> {
        if let Some(store) = self.store.take() {
            store.close().await?;
        }
        self.store = Some(self.variant.open(&self.home).await?);
        Ok(())
    }
}

#[async_trait]
impl Subject for Sessions {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            if self.next == self.turn {
                self.next = 0;
                if self.cold {
                    self.reopen().await?;
                }
            }
            let session = self.sessions.get(self.next).context("there are too few sessions")?;
            self.next += 1;
            let store = self.store.as_ref().context("the store is closed")?;
            let started = Instant::now();
            let found = store
                .engine
                .get_inbound_group_session(session.room_id(), session.session_id())
                .await?;
            elapsed += started.elapsed();
            black_box(found.context("a session is gone")?);
        }
        Ok(elapsed)
    }
}

/// The sessions of one sending device, as a key query asks for them twice for every device.
pub(crate) struct OfDevice {
    store: Store,
    _home: Home,
    senders: Vec<Curve25519PublicKey>,
    next: usize,
    expected: usize,
}

impl OfDevice {
    /// Of devices whose sessions are settled, so that none is found, or of those whose sessions all are.
    pub(crate) async fn new(variant: Variant, sessions: &[InboundGroupSession], settled: bool) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = filled(variant, &home, sessions).await?;
        let firsts = sessions.iter().step_by(SESSIONS_A_SENDER);
        let wanted = firsts.filter(|session| (session.sender_data_type() == SenderDataType::UnknownDevice) != settled);
        Ok(Self {
            store,
            _home: home,
            senders: wanted.map(InboundGroupSession::sender_key).collect(),
            next: 0,
            expected: if settled { 0 } else { SESSIONS_A_SENDER },
        })
    }
}

#[async_trait]
impl Subject for OfDevice {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            let sender = self.senders.get(self.next % self.senders.len().max(1));
            let sender = *sender.context("there is no such sender")?;
            self.next += 1;
            let started = Instant::now();
            let found = self
                .store
                .engine
                .get_inbound_group_sessions_for_device_batch(sender, SenderDataType::UnknownDevice, None, 50)
                .await?;
            elapsed += started.elapsed();
            anyhow::ensure!(
                found.len() == self.expected,
                "{} sessions instead of {}",
                found.len(),
                self.expected
            );
        }
        Ok(elapsed)
    }
}
