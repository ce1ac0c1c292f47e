//! How the dehydrated device stands, here and on the homeserver.

use ruma::OwnedDeviceId;
use serde::Serialize;

use super::{DehydrationError, made::Made};
use crate::{Error, Orchestrator, Result};

/// How the dehydrated device stands.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let stands = device.dehydration_status().await?;
/// if stands.device_id.is_some() && !stands.key_is_here {
///     println!("another device of ours has made it: recover the identity to open it");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DehydrationStatus {
    /// The homeserver knows such devices.
    pub supported: bool,
    /// The device that the homeserver has.
    pub device_id: Option<OwnedDeviceId>,
    /// This device replaces it now and then.
    pub enabled: bool,
    /// Since when this device knows it, in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Its key is here.
    pub key_is_here: bool,
}

impl Orchestrator {
    /// How the account's dehydrated device stands.
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn dehydration_status(&self) -> Result<DehydrationStatus> {
        let (supported, device_id) = match self.dehydrated_device().await {
            Ok(device) => (true, device.map(|device| device.device_id)),
            Err(Error::Dehydration(DehydrationError::Unsupported)) => (false, None),
            Err(error) => return Err(error),
        };
        let made: Option<Made> = self.store().record(&Made::id()).await?;
        let key_is_here = self.dehydration_key().await?.is_some();
        Ok(DehydrationStatus {
            supported,
            device_id,
            enabled: made.is_some(),
            since_ms: made.map(|made| made.since_ms),
            key_is_here,
        })
    }
}
