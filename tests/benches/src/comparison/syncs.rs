//! Syncs that bring room keys, and key queries that bring devices.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use matrix_sdk_crypto::{
    Account, DeviceData,
    olm::{InboundGroupSession, PickledAccount},
    store::types::{Changes, DeviceChanges, PendingChanges},
};

use super::{
    reads::filled,
    rounds::Subject,
    variant::{Home, Store, Variant, commit},
};

/// A sync with new room keys: the account, which gave one-time keys away, then the sessions and the token.
pub(crate) struct Syncs {
    variant: Variant,
    home: Home,
    store: Store,
    sessions: Vec<InboundGroupSession>,
    keys: usize,
    next: usize,
}

impl Syncs {
    pub(crate) async fn new(variant: Variant, sessions: &[InboundGroupSession], keys: usize) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = filled(variant, &home, &[]).await?;
        Ok(Self {
            variant,
            home,
            store,
            sessions: sessions.to_vec(),
            keys,
            next: 0,
        })
    }

    async fn sync(&mut self) -> anyhow::Result<Duration> {
        if self.next + self.keys > self.sessions.len() {
            // Every key is new once: begin with an empty store again.
            self.home = Home::new()?;
            self.store = filled(self.variant, &self.home, &[]).await?;
            self.next = 0;
        }
        let new = self.sessions.get(self.next..self.next + self.keys);
        let changes = Changes {
            inbound_group_sessions: new.context("there are too few sessions")?.to_vec(),
            next_batch_token: Some(format!("token{}", self.next)),
            ..Changes::default()
        };
        let pickle: PickledAccount = self
            .store
            .engine
            .load_account()
            .await?
            .context("the account is gone")?
            .pickle();
        let account = Some(Account::from_pickle(pickle)?);
        self.next += self.keys;
        let started = Instant::now();
        let unit = self.store.begin().await?;
        self.store
            .engine
            .save_pending_changes(PendingChanges { account })
            .await?;
        self.store.engine.save_changes(changes).await?;
        commit(unit).await?;
        Ok(started.elapsed())
    }
}

#[async_trait]
impl Subject for Syncs {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            elapsed += self.sync().await?;
        }
        Ok(elapsed)
    }
}

/// The devices of a key query, all of them changed.
pub(crate) struct Devices {
    store: Store,
    _home: Home,
    devices: Vec<DeviceData>,
}

impl Devices {
    pub(crate) async fn new(
        variant: Variant,
        sessions: &[InboundGroupSession],
        devices: &[DeviceData],
    ) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let store = filled(variant, &home, sessions).await?;
        Ok(Self {
            store,
            _home: home,
            devices: devices.to_vec(),
        })
    }
}

#[async_trait]
impl Subject for Devices {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            let changes = Changes {
                devices: DeviceChanges {
                    changed: self.devices.clone(),
                    ..DeviceChanges::default()
                },
                ..Changes::default()
            };
            let started = Instant::now();
            let unit = self.store.begin().await?;
            self.store.engine.save_changes(changes).await?;
            commit(unit).await?;
            elapsed += started.elapsed();
        }
        Ok(elapsed)
    }
}
