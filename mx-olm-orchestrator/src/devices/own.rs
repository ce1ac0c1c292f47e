//! Our own device as the homeserver shows it: gone, or with other keys, is for the operator to know, and ends uploads
//! and sends.

use matrix_sdk_crypto::{OlmMachine, types::DeviceKeys};
use mx_crypto_store::{RecordId, Unit};
use ruma::{DeviceKeyId, api::client::keys::get_keys};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Orchestrator, Result,
    keys::{PublicKeys, SETTINGS, published},
    machine::Ending,
};

/// What is wrong with our own device on the homeserver.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OwnDevice {
    /// It is not among our user's devices any more.
    Deleted,
    /// It is there with other keys. This never ends by itself.
    Mismatch,
}

impl OwnDevice {
    pub(crate) fn error(self, device: &ruma::DeviceId) -> Error {
        let device = device.to_owned();
        match self {
            Self::Deleted => Error::OwnDeviceDeleted { device },
            Self::Mismatch => Error::DeviceKeysMismatch { device },
        }
    }
}

fn id() -> RecordId {
    RecordId::named(SETTINGS, &[], "own-device")
}

/// Compare what an answer shows of our own device, asked for or not, with what we are.
pub(super) async fn note(machine: &OlmMachine, unit: &Unit, answer: &get_keys::v3::Response) -> Result<()> {
    let Some(devices) = answer.device_keys.get(machine.user_id()) else {
        return Ok(());
    };
    if super::servers(&answer.failures).contains(machine.user_id().server_name()) {
        return Ok(());
    }
    // Before they are published, there are none.
    if unit.get::<bool>(&published()).await? != Some(true) {
        return Ok(());
    }
    let found = match devices.get(machine.device_id()) {
        None => Some(OwnDevice::Deleted),
        Some(raw) => {
            let ours = PublicKeys::of(machine);
            let theirs: Option<DeviceKeys> = raw.deserialize_as_unchecked().ok();
            let theirs = theirs.map(|keys| {
                let of = |algorithm| {
                    let id = DeviceKeyId::from_parts(algorithm, machine.device_id());
                    keys.keys.get(&id).map(|key| key.to_base64()).unwrap_or_default()
                };
                PublicKeys {
                    ed25519: of(ruma::DeviceKeyAlgorithm::Ed25519),
                    curve25519: of(ruma::DeviceKeyAlgorithm::Curve25519),
                }
            });
            (theirs.as_ref() != Some(&ours)).then_some(OwnDevice::Mismatch)
        }
    };
    let before: Option<OwnDevice> = unit.get(&id()).await?;
    match found {
        _ if before == Some(OwnDevice::Mismatch) => {}
        Some(found) if before != Some(found) => {
            tracing::error!(?found, "the homeserver does not show our own device as it is");
            unit.put(&id(), &found)?;
        }
        None if before.is_some() => unit.delete(&id())?,
        _ => {}
    }
    Ok(())
}

impl Orchestrator {
    /// What is known to be wrong with our own device.
    pub(crate) async fn own_device(&self) -> Result<Option<OwnDevice>> {
        Ok(self.store().record(&id()).await?)
    }

    /// Remember what is wrong with our own device.
    pub(crate) async fn note_own_device(&self, found: Option<OwnDevice>) -> Result<()> {
        self.machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    match found {
                        Some(found) => unit.put(&id(), &found)?,
                        None => unit.delete(&id())?,
                    }
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }

    /// Refuse to go on with a device that is not ours any more. One that was missing is looked for again: the answer of
    /// a moment must not end a device.
    ///
    /// # Errors
    /// [`Error::OwnDeviceDeleted`], [`Error::DeviceKeysMismatch`]; of the request; of the store.
    pub(crate) async fn refuse_lost_device(&self) -> Result<()> {
        match self.own_device().await? {
            None => Ok(()),
            Some(found @ OwnDevice::Mismatch) => Err(found.error(self.device_id())),
            Some(OwnDevice::Deleted) => {
                let ours = self.identity_keys().await?;
                let found = match self.own_device_on_server().await? {
                    None => Some(OwnDevice::Deleted),
                    Some(theirs) if theirs == ours => None,
                    Some(_) => Some(OwnDevice::Mismatch),
                };
                if found != Some(OwnDevice::Deleted) {
                    self.note_own_device(found).await?;
                }
                found.map_or(Ok(()), |found| Err(found.error(self.device_id())))
            }
        }
    }
}
