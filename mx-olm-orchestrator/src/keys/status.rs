//! Our device's public keys: as they are here, and as the homeserver shows them.

use matrix_sdk_crypto::OlmMachine;
use ruma::{
    DeviceKeyId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId,
    api::client::keys::{get_keys, upload_keys},
};

use crate::{Orchestrator, Result, machine::Ending, outgoing};

/// Our device's keys, here and on the homeserver.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let status = device.key_status().await?;
/// println!("the fingerprint is {}", status.ed25519);
/// if !status.published {
///     device.publish_keys().await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct KeyStatus {
    /// Whose keys.
    pub user_id: OwnedUserId,
    /// Which device's.
    pub device_id: OwnedDeviceId,
    /// The public Ed25519 key: the device's fingerprint.
    pub ed25519: String,
    /// The public Curve25519 key.
    pub curve25519: String,
    /// The homeserver shows these keys to others.
    pub published: bool,
    /// One-time keys that the homeserver still has.
    pub one_time_keys: u64,
}

/// The public identity keys of our device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PublicKeys {
    pub(crate) ed25519: String,
    pub(crate) curve25519: String,
}

impl PublicKeys {
    pub(crate) fn of(machine: &OlmMachine) -> Self {
        let keys = machine.identity_keys();
        Self {
            ed25519: keys.ed25519.to_base64(),
            curve25519: keys.curve25519.to_base64(),
        }
    }
}

impl Orchestrator {
    /// Our device's keys, here and on the homeserver.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let keys = device.key_status().await?;
    /// println!("others compare {}; published: {}; {} can be claimed", keys.ed25519, keys.published, keys.one_time_keys);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request; of the store.
    pub async fn key_status(&self) -> Result<KeyStatus> {
        let keys = self.identity_keys().await?;
        let on_server = self.own_device_on_server().await?;
        // An upload of nothing answers with the counts.
        let counts = outgoing::upload(self.homeserver(), upload_keys::v3::Request::new()).await?;
        let one_time_keys = counts.one_time_key_counts.get(&OneTimeKeyAlgorithm::SignedCurve25519);
        Ok(KeyStatus {
            user_id: self.user_id().to_owned(),
            device_id: self.device_id().to_owned(),
            published: on_server.as_ref() == Some(&keys),
            ed25519: keys.ed25519,
            curve25519: keys.curve25519,
            one_time_keys: one_time_keys.map_or(0, |count| (*count).into()),
        })
    }

    pub(crate) async fn identity_keys(&self) -> Result<PublicKeys> {
        self.machine()
            .unit(move |machine, _| Box::pin(async move { Ok(Ending::Commit(PublicKeys::of(machine))) }))
            .await
    }

    /// What the homeserver shows as the keys of our device. `None`: it shows none.
    pub(crate) async fn own_device_on_server(&self) -> Result<Option<PublicKeys>> {
        let mut request = get_keys::v3::Request::new();
        request
            .device_keys
            .insert(self.user_id().to_owned(), vec![self.device_id().to_owned()]);
        let answer = self
            .homeserver()
            .send_with(request, mx_transport::Call::repeatable())
            .await?;
        let raw = answer
            .device_keys
            .get(self.user_id())
            .and_then(|devices| devices.get(self.device_id()));
        let Some(keys) = raw.and_then(|raw| raw.deserialize().ok()) else {
            return Ok(None);
        };
        let of = |algorithm| {
            keys.keys
                .get(&DeviceKeyId::from_parts(algorithm, self.device_id()))
                .cloned()
                .unwrap_or_default()
        };
        Ok(Some(PublicKeys {
            ed25519: of(ruma::DeviceKeyAlgorithm::Ed25519),
            curve25519: of(ruma::DeviceKeyAlgorithm::Curve25519),
        }))
    }
}
