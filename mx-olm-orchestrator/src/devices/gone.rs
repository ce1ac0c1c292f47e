//! Devices that their owners have deleted: the engine forgets them, and a message that comes late is told apart by this.

use std::collections::BTreeSet;

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{DeviceId, OwnedDeviceId, UserId};

use crate::Result;

const GONE: Family = Family::new("deleted-devices");

/// Of one user, so many are remembered.
const MOST: usize = 100;

fn id(user: &UserId) -> RecordId {
    RecordId::named(GONE, &[], user.as_str())
}

/// The devices of a user that are known.
pub(super) async fn known(machine: &OlmMachine, user: &UserId) -> Result<BTreeSet<OwnedDeviceId>> {
    let devices = machine.get_user_devices(user, None).await?;
    Ok(devices.keys().map(ToOwned::to_owned).collect())
}

/// Remember which of the devices that were known `before` are not any more.
pub(super) async fn remember(
    machine: &OlmMachine,
    unit: &Unit,
    user: &UserId,
    before: &BTreeSet<OwnedDeviceId>,
) -> Result<()> {
    let now = known(machine, user).await?;
    let noted: Vec<OwnedDeviceId> = unit.get(&id(user)).await?.unwrap_or_default();
    let mut gone: Vec<OwnedDeviceId> = noted.iter().filter(|device| !now.contains(*device)).cloned().collect();
    for device in before.difference(&now) {
        if !gone.contains(device) {
            gone.push(device.clone());
        }
    }
    if gone.len() > MOST {
        gone.drain(..gone.len() - MOST);
    }
    if gone == noted {
        return Ok(());
    }
    if gone.is_empty() {
        unit.delete(&id(user))?;
    } else {
        unit.put(&id(user), &gone)?;
    }
    Ok(())
}

/// Whether a device was known, and its owner has deleted it.
pub(crate) async fn was_deleted(unit: &Unit, user: &UserId, device: &DeviceId) -> Result<bool> {
    let gone: Option<Vec<OwnedDeviceId>> = unit.get(&id(user)).await?;
    Ok(gone.is_some_and(|gone| gone.iter().any(|gone| gone == device)))
}
