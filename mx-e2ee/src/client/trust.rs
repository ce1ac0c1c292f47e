//! What our own user decides about devices of others.

use std::collections::{BTreeMap, BTreeSet};

use mx_olm_orchestrator::{DeviceTrust, Drift, TrustManifest, UserDevices, UserIdentityStatus};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::Client;
use crate::Result;

impl Client {
    /// The devices of a user, ourselves included: how each is called, its fingerprint, and how it stands here. As
    /// [`Orchestrator::devices`](mx_olm_orchestrator::Orchestrator::devices).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// for device in client.devices(user_id!("@friend:example.org")).await?.devices {
    ///     println!("{} {:?}: {}", device.device_id, device.ed25519, device.trust.describe());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `devices_unknown`; of the request; of the store.
    pub async fn devices(&self, user: &UserId) -> Result<UserDevices> {
        Ok(self.0.device.devices(user).await?)
    }

    /// Give a device no room key from now on. As
    /// [`Orchestrator::block_device`](mx_olm_orchestrator::Orchestrator::block_device).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::{device_id, user_id};
    ///
    /// // It was stolen: rooms whose key it has get a new one with the next message.
    /// client.block_device(user_id!("@friend:example.org"), device_id!("PHONE")).await?;
    /// // It was found again.
    /// client.unblock_device(user_id!("@friend:example.org"), device_id!("PHONE")).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn block_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        Ok(self.0.device.block_device(user, device).await?)
    }

    /// Block a device no more. What was decided about its trust is forgotten too.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{DeviceTrust, ruma::user_id};
    ///
    /// // Whatever was blocked of this user is blocked no more.
    /// let user = user_id!("@friend:example.org");
    /// for device in client.devices(user).await?.devices {
    ///     if device.decision == Some(DeviceTrust::Blocked) {
    ///         client.unblock_device(user, &device.device_id).await?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn unblock_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        Ok(self.0.device.forget_device_trust(user, device).await?)
    }

    /// Trust a device by its fingerprint. As
    /// [`Orchestrator::trust_device`](mx_olm_orchestrator::Orchestrator::trust_device).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::{device_id, user_id};
    ///
    /// let told = "the fingerprint that the friend told us";
    /// match client.trust_device(user_id!("@friend:example.org"), device_id!("PHONE"), told).await {
    ///     Err(error) if error.code() == "fingerprint_mismatch" => println!("this is not the friend's device: {error}"),
    ///     trusted => trusted?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `fingerprint_mismatch`; of the store.
    pub async fn trust_device(&self, user: &UserId, device: &DeviceId, ed25519: &str) -> Result<()> {
        Ok(self.0.device.trust_device(user, device, ed25519).await?)
    }

    /// What was decided about each of a user's devices.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{DeviceTrust, ruma::user_id};
    ///
    /// for (device, decision) in client.device_trust(user_id!("@friend:example.org")).await? {
    ///     match decision {
    ///         DeviceTrust::Blocked => println!("{device} is blocked"),
    ///         DeviceTrust::Trusted { ed25519 } => println!("{device} is trusted as long as it is {ed25519}"),
    ///         other => println!("{device}: {other:?}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn device_trust(&self, user: &UserId) -> Result<BTreeMap<OwnedDeviceId, DeviceTrust>> {
        Ok(self.0.device.device_trust(user).await?)
    }

    /// How a user's cross-signing identity stands. `None`: none is known.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// let friend = user_id!("@friend:example.org");
    /// match client.user_identity(friend).await? {
    ///     Some(identity) if identity.verified => println!("we verified {friend}"),
    ///     Some(identity) => println!("compare {:?} by another way", identity.master_key),
    ///     None => println!("nobody vouches for the devices of {friend}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn user_identity(&self, user: &UserId) -> Result<Option<UserIdentityStatus>> {
        Ok(self.0.device.user_identity(user).await?)
    }

    /// Verify a user whose public master key the user has told us. As
    /// [`Orchestrator::verify_user`](mx_olm_orchestrator::Orchestrator::verify_user).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// let friend = user_id!("@friend:example.org");
    /// client.verify_user_by_key(friend, "the master key in base64 that the friend told us").await?;
    /// if let Some(identity) = client.user_identity(friend).await? {
    ///     println!("{} is verified: {}", identity.user_id, identity.verified);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `identity_unknown`, `identity_key_differs`, `identity_incomplete`; of the request; of the store.
    pub async fn verify_user_by_key(&self, user: &UserId, master_key: &str) -> Result<()> {
        Ok(self.0.device.verify_user(user, master_key).await?)
    }

    /// Go on with a user whose identity was replaced, without verifying it. As
    /// [`Orchestrator::acknowledge_identity_change`](mx_olm_orchestrator::Orchestrator::acknowledge_identity_change).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// let friend = user_id!("@friend:example.org");
    /// if let Some(identity) = client.user_identity(friend).await?.filter(|identity| identity.verification_lost)
    ///     && let Some(key) = identity.master_key
    /// {
    ///     // Somebody has asked the friend, who has reset the identity indeed.
    ///     client.acknowledge_identity_change(friend, &key).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `identity_unknown`, `identity_key_differs`; of the store.
    pub async fn acknowledge_identity_change(&self, user: &UserId, master_key: &str) -> Result<()> {
        Ok(self.0.device.acknowledge_identity_change(user, master_key).await?)
    }

    /// Hold the users of a manifest against what the homeserver shows of them now: every difference. As
    /// [`Orchestrator::check_trust_manifest`](mx_olm_orchestrator::Orchestrator::check_trust_manifest).
    ///
    /// ```no_run
    /// # use mx_e2ee::{Client, TrustManifest};
    /// # async fn example(client: Client, manifest: TrustManifest) -> mx_e2ee::Result<()> {
    /// for difference in client.check_trust_manifest(&manifest).await? {
    ///     println!("{difference}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn check_trust_manifest(&self, manifest: &TrustManifest) -> Result<Vec<Drift>> {
        Ok(self.0.device.check_trust_manifest(manifest).await?)
    }

    /// A manifest of these users as the homeserver shows them now. Whether that is right is for people to say.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_e2ee::ruma::owned_user_id;
    ///
    /// let users = [owned_user_id!("@bot:example.org"), owned_user_id!("@boss:example.org")].into();
    /// let draft = client.draft_trust_manifest(&users).await?;
    /// // For people to compare, before it is rolled out.
    /// std::fs::write("trust.json", serde_json::to_string_pretty(&draft)?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn draft_trust_manifest(&self, users: &BTreeSet<OwnedUserId>) -> Result<TrustManifest> {
        Ok(self.0.device.draft_trust_manifest(users).await?)
    }
}
