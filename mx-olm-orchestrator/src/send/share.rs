//! Sharing a room key: one unit, which is undone when the key would reach nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use matrix_sdk_crypto::{
    EncryptionSettings, OlmMachine, UserDevices,
    olm::{PickledOutboundGroupSession, ShareInfo},
    types::requests::ToDeviceRequest,
};
use mx_crypto_store::Unit;
use ruma::{OwnedDeviceId, OwnedUserId, RoomId};

use super::{
    receipt::{DeviceOutcome, DeviceReceipt},
    recipients::Readers,
};
use crate::{
    Error, Orchestrator, Result, UnusableReason,
    claims::{claim_failures, has_session},
    devices::unusable_devices,
    keys::conflict::is_outdated,
    machine::Ending,
};

/// A room key that may be used once `requests` are delivered.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) requests: Vec<Arc<ToDeviceRequest>>,
    pub(crate) session: String,
    pub(crate) new_session: bool,
    pub(crate) devices: Vec<DeviceReceipt>,
    pub(crate) users_without_devices: Vec<OwnedUserId>,
}

type Device = (OwnedUserId, OwnedDeviceId);
/// Everybody who may read, with the devices that are known.
type Held = BTreeMap<OwnedUserId, UserDevices>;

impl Orchestrator {
    /// Share the room's key with every device of `readers` that does not have it; a new one where the old one may not
    /// be used any more.
    pub(crate) async fn share(&self, room: &RoomId, readers: &Readers, settings: EncryptionSettings) -> Result<Shared> {
        let room = room.to_owned();
        let users = readers.users.clone();
        let own = (self.user_id().to_owned(), self.device_id().to_owned());
        let must_reach = readers.must_reach(self.user_id());
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let before = pickled(machine, &room).await?;
                    let mut held = Held::new();
                    for user in &users {
                        held.insert(user.clone(), machine.get_user_devices(user, None).await?);
                    }
                    if must_renew(unit, &room, before.as_ref(), &held).await? {
                        machine.discard_room_key(&room).await?;
                    }
                    let requests =
                        Box::pin(machine.share_room_key(&room, users.iter().map(AsRef::as_ref), settings)).await?;
                    let after = pickled(machine, &room).await?.ok_or_else(|| Error::Engine {
                        reason: "there is no room key after sharing one".to_owned(),
                    })?;
                    let kept = before.filter(|before| before.0 == after.0);
                    let new_session = kept.is_none();
                    let already = kept.map(|before| given(&before.1)).unwrap_or_default();
                    let shares = shares(&after.1);
                    let (devices, users_without_devices) =
                        coverage(machine, unit, &held, &own, &shares, &already).await?;
                    let is_given = |share: &ShareInfo| matches!(share, ShareInfo::Shared(_));
                    let reached = shares
                        .iter()
                        .any(|(device, share)| must_reach.contains(&device.0) && *device != own && is_given(share));
                    let alone = devices.is_empty() && must_reach.contains(&own.0);
                    if !(reached || must_reach.is_empty() || alone) {
                        return Err(Error::NoUsableRecipients {
                            room,
                            devices,
                            users_without_devices,
                        });
                    }
                    Ok(Ending::Commit(Shared {
                        requests,
                        session: after.0,
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

/// Whether the room's key must not be used any more although the engine would: it is from before an acknowledged
/// conflict, or a device that has it has another Curve25519 key since, and would not be given it again (reference:
/// engine, gap B11).
async fn must_renew(
    unit: &Unit,
    room: &RoomId,
    session: Option<&(String, PickledOutboundGroupSession)>,
    held: &Held,
) -> Result<bool> {
    if is_outdated(unit, room).await? {
        return Ok(true);
    }
    let Some((_, session)) = session else { return Ok(false) };
    Ok(shares(session).into_iter().any(|((user, device), share)| {
        let now = held.get(&user).and_then(|devices| devices.get(&device));
        match share {
            ShareInfo::Shared(given) => now.is_some_and(|now| now.curve25519_key() != Some(given.sender_key)),
            ShareInfo::Withheld(_) => false,
        }
    }))
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
    held: &Held,
    own: &Device,
    shares: &BTreeMap<Device, ShareInfo>,
    already: &BTreeSet<Device>,
) -> Result<(Vec<DeviceReceipt>, Vec<OwnedUserId>)> {
    let mut receipts = Vec::new();
    let mut without_devices = Vec::new();
    for (user, held) in held {
        let unusable = unusable_devices(unit, user).await?;
        let failures = claim_failures(unit, user).await?;
        let mut named: BTreeSet<OwnedDeviceId> = held.keys().map(ToOwned::to_owned).collect();
        named.extend(unusable.keys().cloned());
        if named.is_empty() {
            without_devices.push(user.clone());
        }
        for device_id in named {
            let device = (user.clone(), device_id);
            if device == *own {
                continue;
            }
            let no_session = || match failures.get(&device.1) {
                None | Some(UnusableReason::NoOneTimeKey) => DeviceOutcome::NoOneTimeKey,
                Some(reason) => DeviceOutcome::Rejected { reason: reason.clone() },
            };
            let outcome = match (unusable.get(&device.1), shares.get(&device)) {
                (Some(reason), _) => DeviceOutcome::Rejected { reason: reason.clone() },
                (None, Some(ShareInfo::Shared(_))) if already.contains(&device) => DeviceOutcome::AlreadyHad,
                (None, Some(ShareInfo::Shared(_))) => DeviceOutcome::Reached,
                (None, Some(ShareInfo::Withheld(code))) if code.as_str() == "m.no_olm" => no_session(),
                (None, Some(ShareInfo::Withheld(code))) => DeviceOutcome::Withheld {
                    code: code.as_str().to_owned(),
                },
                // The engine tells a device once that there is no session with it, and leaves it out after that.
                (None, None) => match held.get(&device.1) {
                    Some(held) if !has_session(machine, &held).await? => no_session(),
                    _ => DeviceOutcome::Missed,
                },
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
