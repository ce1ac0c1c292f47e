//! What our own user decides about devices of others.

use std::collections::BTreeMap;

use mx_olm_orchestrator::DeviceTrust;
use ruma::{DeviceId, OwnedDeviceId, UserId};

use super::Client;
use crate::Result;

impl Client {
    /// Give a device no room key from now on. As
    /// [`Orchestrator::block_device`](mx_olm_orchestrator::Orchestrator::block_device).
    ///
    /// # Errors
    /// Of the store.
    pub async fn block_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        Ok(self.0.device.block_device(user, device).await?)
    }

    /// Block a device no more. What was decided about its trust is forgotten too.
    ///
    /// # Errors
    /// Of the store.
    pub async fn unblock_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        Ok(self.0.device.forget_device_trust(user, device).await?)
    }

    /// Trust a device by its fingerprint. As
    /// [`Orchestrator::trust_device`](mx_olm_orchestrator::Orchestrator::trust_device).
    ///
    /// # Errors
    /// `fingerprint_mismatch`; of the store.
    pub async fn trust_device(&self, user: &UserId, device: &DeviceId, ed25519: &str) -> Result<()> {
        Ok(self.0.device.trust_device(user, device, ed25519).await?)
    }

    /// What was decided about each of a user's devices.
    ///
    /// # Errors
    /// Of the store.
    pub async fn device_trust(&self, user: &UserId) -> Result<BTreeMap<OwnedDeviceId, DeviceTrust>> {
        Ok(self.0.device.device_trust(user).await?)
    }
}
