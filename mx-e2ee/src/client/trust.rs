//! What our own user decides about devices of others.

use std::collections::{BTreeMap, BTreeSet};

use mx_olm_orchestrator::{DeviceTrust, Drift, TrustManifest, UserIdentityStatus};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

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

    /// How a user's cross-signing identity stands. `None`: none is known.
    ///
    /// # Errors
    /// Of the store.
    pub async fn user_identity(&self, user: &UserId) -> Result<Option<UserIdentityStatus>> {
        Ok(self.0.device.user_identity(user).await?)
    }

    /// Verify a user whose public master key the user has told us. As
    /// [`Orchestrator::verify_user`](mx_olm_orchestrator::Orchestrator::verify_user).
    ///
    /// # Errors
    /// `identity_unknown`, `identity_key_differs`, `identity_incomplete`; of the request; of the store.
    pub async fn verify_user_by_key(&self, user: &UserId, master_key: &str) -> Result<()> {
        Ok(self.0.device.verify_user(user, master_key).await?)
    }

    /// Go on with a user whose identity was replaced, without verifying it. As
    /// [`Orchestrator::acknowledge_identity_change`](mx_olm_orchestrator::Orchestrator::acknowledge_identity_change).
    ///
    /// # Errors
    /// `identity_unknown`, `identity_key_differs`; of the store.
    pub async fn acknowledge_identity_change(&self, user: &UserId, master_key: &str) -> Result<()> {
        Ok(self.0.device.acknowledge_identity_change(user, master_key).await?)
    }

    /// Hold the users of a manifest against what the homeserver shows of them now: every difference. As
    /// [`Orchestrator::check_trust_manifest`](mx_olm_orchestrator::Orchestrator::check_trust_manifest).
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn check_trust_manifest(&self, manifest: &TrustManifest) -> Result<Vec<Drift>> {
        Ok(self.0.device.check_trust_manifest(manifest).await?)
    }

    /// A manifest of these users as the homeserver shows them now. Whether that is right is for people to say.
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn draft_trust_manifest(&self, users: &BTreeSet<OwnedUserId>) -> Result<TrustManifest> {
        Ok(self.0.device.draft_trust_manifest(users).await?)
    }
}
