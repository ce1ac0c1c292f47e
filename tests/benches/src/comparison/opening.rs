//! Opening a store that is full of sessions.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use matrix_sdk_crypto::olm::InboundGroupSession;

use super::{
    reads::filled,
    rounds::Subject,
    variant::{Home, Variant},
};

/// A store that is closed between two measurements.
pub(crate) struct Opening {
    variant: Variant,
    home: Home,
}

impl Opening {
    pub(crate) async fn new(variant: Variant, sessions: &[InboundGroupSession]) -> anyhow::Result<Self> {
        let home = Home::new()?;
        filled(variant, &home, sessions).await?.close().await?;
        Ok(Self { variant, home })
    }
}

#[async_trait]
impl Subject for Opening {
    async fn run(&mut self, iterations: u64) -> anyhow::Result<Duration> {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            let started = Instant::now();
            let store = self.variant.open(&self.home).await?;
            elapsed += started.elapsed();
            store.close().await?;
        }
        Ok(elapsed)
    }
}
