//! What became of a room key for each device of everybody who may read.

use std::collections::{BTreeMap, BTreeSet};

use matrix_sdk_crypto::{OlmMachine, olm::ShareInfo};
use mx_crypto_store::Unit;
use ruma::{OwnedDeviceId, OwnedUserId};

use super::{
    receipt::{DeviceOutcome, DeviceReceipt},
    share::{Held, Key, Shares},
};
use crate::{
    Result, UnusableReason,
    claims::{claim_failures, has_session},
    devices::{Unusable, unusable_devices},
};

/// What is known of a share.
pub(super) struct Coverage<'a> {
    pub(super) machine: &'a OlmMachine,
    pub(super) unit: &'a Unit,
    /// Our own device, which is nobody's reader.
    pub(super) own: &'a Key,
    /// Users whose server could not be asked.
    pub(super) unknown: &'a BTreeSet<OwnedUserId>,
    pub(super) shares: &'a Shares,
    /// Whom an earlier request gave or withheld the key.
    pub(super) delivered: &'a BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, ShareInfo>>,
}

/// What became of a key.
#[derive(Default)]
pub(super) struct Covered {
    pub(super) devices: Vec<DeviceReceipt>,
    pub(super) users_without_devices: Vec<OwnedUserId>,
    /// A device came after sessions were opened: nobody has asked for a one-time key of it.
    pub(super) overtaken: bool,
}

/// A user's devices that cannot be used, and why.
struct Faults {
    unusable: Unusable,
    claims: Unusable,
}

impl Coverage<'_> {
    /// Each device, and the users without any.
    pub(super) async fn of(&self, held: &Held) -> Result<Covered> {
        let mut covered = Covered::default();
        for (user, devices) in held {
            let faults = Faults {
                unusable: unusable_devices(self.unit, user).await?,
                claims: claim_failures(self.unit, user).await?,
            };
            let mut named: BTreeSet<OwnedDeviceId> = devices.keys().map(ToOwned::to_owned).collect();
            named.extend(faults.unusable.keys().cloned());
            if named.is_empty() && !self.unknown.contains(user) {
                covered.users_without_devices.push(user.clone());
            }
            for device_id in named {
                let device = (user.clone(), device_id);
                if device == *self.own {
                    continue;
                }
                let outcome = self.outcome(&device, &faults, devices.get(&device.1)).await?;
                covered.overtaken |= outcome == DeviceOutcome::NoOneTimeKey && !faults.claims.contains_key(&device.1);
                covered.devices.push(DeviceReceipt {
                    user_id: device.0,
                    device_id: device.1,
                    outcome,
                });
            }
        }
        Ok(covered)
    }

    async fn outcome(
        &self,
        device: &Key,
        faults: &Faults,
        held: Option<matrix_sdk_crypto::Device>,
    ) -> Result<DeviceOutcome> {
        let no_session = || match faults.claims.get(&device.1) {
            Some(reason) if *reason != UnusableReason::NoOneTimeKey => {
                DeviceOutcome::Rejected { reason: reason.clone() }
            }
            _ if self.unknown.contains(&device.0) => DeviceOutcome::Unknown,
            _ => DeviceOutcome::NoOneTimeKey,
        };
        Ok(match (faults.unusable.get(&device.1), self.shares.get(device)) {
            (Some(reason), _) => DeviceOutcome::Rejected { reason: reason.clone() },
            (None, Some(ShareInfo::Shared(_))) if self.is_delivered(device) => DeviceOutcome::AlreadyHad,
            (None, Some(ShareInfo::Shared(_))) => DeviceOutcome::Reached,
            (None, Some(ShareInfo::Withheld(code))) if code.as_str() == "m.no_olm" => no_session(),
            (None, Some(ShareInfo::Withheld(code))) => DeviceOutcome::Withheld {
                code: code.as_str().to_owned(),
            },
            // The engine tells a device once that there is no session with it, and leaves it out after that.
            (None, None) => match held {
                Some(held) if !has_session(self.machine, &held).await? => no_session(),
                _ => DeviceOutcome::Missed,
            },
        })
    }

    fn is_delivered(&self, device: &Key) -> bool {
        self.delivered
            .get(&device.0)
            .and_then(|devices| devices.get(&device.1))
            .is_some_and(|share| matches!(share, ShareInfo::Shared(_)))
    }
}
