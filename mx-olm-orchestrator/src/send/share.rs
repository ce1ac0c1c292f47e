//! Sharing a room key: one unit, which is undone when the key would reach nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use matrix_sdk_crypto::{
    EncryptionSettings, OlmMachine,
    olm::{PickledOutboundGroupSession, ShareInfo},
    types::requests::ToDeviceRequest,
};
use mx_crypto_store::Unit;
use ruma::{OwnedDeviceId, OwnedUserId, RoomId};

use super::{
    receipt::{DeviceOutcome, DeviceReceipt},
    recipients::Readers,
};
use crate::{Error, Orchestrator, Result, keys::rejected_devices, machine::Ending};

/// A room key that may be used once `requests` are delivered.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) requests: Vec<Arc<ToDeviceRequest>>,
    pub(crate) new_session: bool,
    pub(crate) devices: Vec<DeviceReceipt>,
    pub(crate) users_without_devices: Vec<OwnedUserId>,
}

type Device = (OwnedUserId, OwnedDeviceId);

impl Orchestrator {
    /// Share the room's key with every device of `readers` that does not have it; a new one where the old one may not
    /// be used any more.
    pub(crate) async fn share(&self, room: &RoomId, readers: &Readers, settings: EncryptionSettings) -> Result<Shared> {
        let room = room.to_owned();
        let users = readers.users.clone();
        let own = (self.user_id().to_owned(), self.device_id().to_owned());
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let before = pickled(machine, &room).await?;
                    let requests =
                        Box::pin(machine.share_room_key(&room, users.iter().map(AsRef::as_ref), settings)).await?;
                    let after = pickled(machine, &room).await?.ok_or_else(|| Error::Engine {
                        reason: "there is no room key after sharing one".to_owned(),
                    })?;
                    let kept = before.filter(|before| before.0 == after.0);
                    let new_session = kept.is_none();
                    let already = kept.map(|before| given(&before.1)).unwrap_or_default();
                    let (devices, users_without_devices) =
                        coverage(machine, unit, &users, &own, &after.1, &already).await?;
                    let reached = devices
                        .iter()
                        .any(|device| matches!(device.outcome, DeviceOutcome::Reached | DeviceOutcome::AlreadyHad));
                    if !reached && !devices.is_empty() {
                        let devices = devices
                            .into_iter()
                            .map(|device| (device.user_id, device.device_id))
                            .collect();
                        return Err(Error::NoUsableRecipients { room, devices });
                    }
                    Ok(Ending::Commit(Shared {
                        requests,
                        new_session,
                        devices,
                        users_without_devices,
                    }))
                })
            })
            .await
    }
}

/// The room's key as the store has it: its id, and whom it was shared with.
async fn pickled(machine: &OlmMachine, room: &RoomId) -> Result<Option<(String, PickledOutboundGroupSession)>> {
    match machine.store().get_outbound_group_session(room).await? {
        Some(session) => Ok(Some((session.session_id().to_owned(), session.pickle().await))),
        None => Ok(None),
    }
}

/// Who was given the key, or will be by a request that is under way.
fn given(session: &PickledOutboundGroupSession) -> BTreeSet<Device> {
    shares(session)
        .into_iter()
        .filter(|(_, share)| matches!(share, ShareInfo::Shared(_)))
        .map(|(device, _)| device)
        .collect()
}

fn shares(session: &PickledOutboundGroupSession) -> BTreeMap<Device, ShareInfo> {
    let delivered = session.shared_with_set.iter();
    let under_way = session.requests.values().flat_map(|(_, shares)| shares.iter());
    delivered
        .chain(under_way)
        .flat_map(|(user, devices)| {
            devices
                .iter()
                .map(move |(device, share)| ((user.clone(), device.clone()), share.clone()))
        })
        .collect()
}

/// What became of the key for each device of everybody who may read, except our own.
async fn coverage(
    machine: &OlmMachine,
    unit: &Unit,
    users: &BTreeSet<OwnedUserId>,
    own: &Device,
    session: &PickledOutboundGroupSession,
    already: &BTreeSet<Device>,
) -> Result<(Vec<DeviceReceipt>, Vec<OwnedUserId>)> {
    let shares = shares(session);
    let mut receipts = Vec::new();
    let mut without_devices = Vec::new();
    for user in users {
        let held = machine.get_user_devices(user, None).await?;
        let rejected = rejected_devices(unit, user).await?;
        let mut named: BTreeSet<OwnedDeviceId> = held.keys().map(ToOwned::to_owned).collect();
        named.extend(rejected.iter().cloned());
        if named.is_empty() {
            without_devices.push(user.clone());
        }
        for device_id in named {
            let device = (user.clone(), device_id);
            if device == *own {
                continue;
            }
            let outcome = match shares.get(&device) {
                Some(ShareInfo::Shared(_)) if already.contains(&device) => DeviceOutcome::AlreadyHad,
                Some(ShareInfo::Shared(_)) => DeviceOutcome::Reached,
                Some(ShareInfo::Withheld(code)) if code.as_str() == "m.no_olm" => DeviceOutcome::NoOneTimeKey,
                Some(ShareInfo::Withheld(code)) => DeviceOutcome::Withheld {
                    code: code.as_str().to_owned(),
                },
                None if rejected.contains(&device.1) => DeviceOutcome::Rejected,
                None => DeviceOutcome::Missed,
            };
            receipts.push(DeviceReceipt {
                user_id: device.0,
                device_id: device.1,
                outcome,
            });
        }
    }
    Ok((receipts, without_devices))
}
