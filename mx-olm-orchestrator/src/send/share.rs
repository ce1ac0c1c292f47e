//! Sharing a room key: one unit, which is undone when the key would reach nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use matrix_sdk_crypto::{
    EncryptionSettings, OlmMachine, UserDevices,
    olm::{PickledOutboundGroupSession, ShareInfo},
    types::{EventEncryptionAlgorithm, requests::ToDeviceRequest},
};
use mx_crypto_store::Unit;
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId};

use super::{
    Recipients,
    audience::Audience,
    coverage::{Coverage, Covered},
    policy::Policy,
    receipt::{Device, DeviceReceipt, Warning},
    recipients::Readers,
    rotation::{self, KeyRecord, Now, RoomKey, RotationReason},
};
use crate::{
    Error, Orchestrator, Result, TrustManifest,
    machine::Ending,
    rooms::{RoomEncryption, RoomRecord},
    trust_manifest::refuse_drift,
};

/// A room key that may be used once `requests` are delivered.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The id of the Megolm session.
    pub(crate) session: String,
    pub(crate) requests: Vec<Arc<ToDeviceRequest>>,
    /// Why the key is another one than that of the room's last message. `None`: it is the same.
    pub(crate) rotation: Option<RotationReason>,
    pub(crate) devices: Vec<DeviceReceipt>,
    pub(crate) users_without_devices: Vec<OwnedUserId>,
    pub(crate) recipients_added: Vec<OwnedUserId>,
    pub(crate) new_devices: Vec<Device>,
    pub(crate) warnings: Vec<Warning>,
    /// Whom the message is for, where that is to be noted once it is sent.
    pub(crate) audience: Option<Audience>,
    /// What is remembered of the room now.
    pub(crate) record: RoomRecord,
}

/// A device, by its user and its id.
pub(super) type Key = (OwnedUserId, OwnedDeviceId);
/// Everybody who may read, with the devices that are known.
pub(super) type Held = BTreeMap<OwnedUserId, UserDevices>;
/// Whom the engine gave a key, or told that it is withheld.
pub(super) type Shares = BTreeMap<Key, ShareInfo>;

impl Orchestrator {
    /// Share the room's key with every device of `readers` that does not have it; a new one where the old one may not
    /// be used any more. `None`: a sync has overtaken `readers`, they have to be found again.
    pub(crate) async fn share(&self, room: &RoomId, readers: &Readers, policy: &Policy) -> Result<Option<Shared>> {
        let sharing = Sharing {
            room: room.to_owned(),
            readers: readers.clone(),
            recipients: policy.recipients,
            now_ms: self.now_ms(),
            own: (self.user_id().to_owned(), self.device_id().to_owned()),
            manifest: self.manifest().await?,
        };
        let members = Arc::clone(self.members());
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let record = RoomRecord::load(unit, &sharing.room).await?;
                    let readers = &sharing.readers;
                    if readers.are_overtaken(machine, &record, &members, &sharing.room).await? {
                        return Ok(Ending::Commit(None));
                    }
                    Ok(match Box::pin(sharing.share(machine, unit, record)).await? {
                        Some(shared) => Ending::Commit(Some(shared)),
                        None => Ending::Undo(None),
                    })
                })
            })
            .await
    }
}

/// One share of one room's key.
#[derive(Debug)]
struct Sharing {
    room: OwnedRoomId,
    readers: Readers,
    recipients: Recipients,
    now_ms: u64,
    own: Key,
    manifest: Option<Arc<TrustManifest>>,
}

impl Sharing {
    /// `None`: a device came meanwhile with which no session was tried.
    async fn share(self, machine: &OlmMachine, unit: &Unit, mut record: RoomRecord) -> Result<Option<Shared>> {
        refuse_drift(machine, &self.manifest, &self.readers.users).await?;
        let replaced = self.replaced_identities(machine).await?;
        if self.recipients.is_strict() && !replaced.is_empty() {
            return Err(Error::IdentityChanged { users: replaced });
        }
        let mut held = Held::new();
        for user in &self.readers.users {
            held.insert(user.clone(), machine.get_user_devices(user, None).await?);
        }
        let (requests, key) = self.renew_and_share(machine, unit, &mut record, &held).await?;
        let shares = shares(&key.pickled);
        let coverage = Coverage {
            machine,
            unit,
            own: &self.own,
            unknown: &self.readers.unknown,
            shares: &shares,
            delivered: &key.pickled.shared_with_set,
        };
        let Covered {
            devices,
            users_without_devices,
            overtaken,
        } = coverage.of(&held).await?;
        if overtaken {
            return Ok(None);
        }
        if !self.is_of_use(&shares, &devices) {
            return Err(Error::NoUsableRecipients {
                room: self.room,
                devices,
                users_without_devices,
            });
        }
        let audience = Audience::new(&key.id, &self.readers.users, &devices);
        let last = Audience::load(unit, &self.room).await?;
        let (recipients_added, new_devices) = last.as_ref().map(|last| audience.since(last)).unwrap_or_default();
        let rotation = record
            .key
            .as_ref()
            .filter(|of| of.session_id == key.id && last.as_ref().is_none_or(|last| last.session_id != key.id))
            .map(|key| key.reason);
        Ok(Some(Shared {
            session: key.id,
            requests,
            rotation,
            devices,
            users_without_devices,
            recipients_added,
            new_devices,
            warnings: self.warnings(&record, replaced),
            audience: (last.as_ref() != Some(&audience)).then_some(audience),
            record,
        }))
    }

    /// Share the key, and remember why where it is a new one.
    async fn renew_and_share(
        &self,
        machine: &OlmMachine,
        unit: &Unit,
        record: &mut RoomRecord,
        held: &Held,
    ) -> Result<(Vec<Arc<ToDeviceRequest>>, RoomKey)> {
        let encryption = record.encryption.clone().ok_or_else(|| Error::RoomNotEncrypted {
            room: self.room.clone(),
        })?;
        let now = Now {
            encryption: &encryption,
            visibility: &self.readers.visibility,
            readers: &self.readers.users,
            held,
            now_ms: self.now_ms,
        };
        let before = RoomKey::load(machine, &self.room).await?;
        let renew = rotation::must_renew(unit, &self.room, record, before.as_ref(), &now).await?;
        if renew.is_some() {
            machine.discard_room_key(&self.room).await?;
        }
        let users = self.readers.users.iter().map(AsRef::as_ref);
        let settings = self.settings(&encryption);
        let requests = Box::pin(machine.share_room_key(&self.room, users, settings)).await?;
        let after = RoomKey::load(machine, &self.room).await?.ok_or_else(|| Error::Engine {
            reason: "there is no room key after sharing one".to_owned(),
        })?;
        if before.as_ref().is_none_or(|before| before.id != after.id) {
            let reason = renew.unwrap_or_else(|| rotation::why(record, before.as_ref(), &after, &now));
            record.key = Some(KeyRecord {
                session_id: after.id.clone(),
                since_ms: self.now_ms,
                reason,
            });
            record.due = None;
            record.save(unit, &self.room)?;
        }
        Ok((requests, after))
    }

    fn settings(&self, encryption: &RoomEncryption) -> EncryptionSettings {
        EncryptionSettings {
            algorithm: EventEncryptionAlgorithm::MegolmV1AesSha2,
            rotation_period: encryption.rotation_period(),
            rotation_period_msgs: encryption.rotation_messages(),
            history_visibility: self.readers.visibility.clone(),
            sharing_strategy: self.recipients.strategy(),
        }
    }

    /// Whether the key reaches somebody, or nobody has to be reached.
    fn is_of_use(&self, shares: &Shares, devices: &[DeviceReceipt]) -> bool {
        let must_reach = self.readers.must_reach(&self.own.0);
        let reached = shares.iter().any(|(device, share)| {
            must_reach.contains(&device.0) && *device != self.own && matches!(share, ShareInfo::Shared(_))
        });
        let alone = devices.is_empty() && must_reach.contains(&self.own.0);
        reached || must_reach.is_empty() || alone
    }

    /// Users whose identity we verified and who show another one now.
    async fn replaced_identities(&self, machine: &OlmMachine) -> Result<BTreeSet<OwnedUserId>> {
        let mut replaced = BTreeSet::new();
        for user in &self.readers.users {
            let identity = machine.get_identity(user, None).await?;
            if identity.is_some_and(|identity| identity.has_verification_violation()) {
                replaced.insert(user.clone());
            }
        }
        Ok(replaced)
    }

    fn warnings(&self, record: &RoomRecord, replaced: BTreeSet<OwnedUserId>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if let Some(change) = record.tampered.clone() {
            warnings.push(Warning::EncryptionStateTampered { change });
        }
        if !self.readers.disputed.is_empty() {
            let users = self.readers.disputed.clone();
            warnings.push(Warning::MembershipDisagrees { users });
        }
        if !replaced.is_empty() {
            warnings.push(Warning::IdentityChanged { users: replaced });
        }
        warnings
    }
}

/// Whom the key was given or withheld, or will be by a request that is under way.
pub(super) fn shares(session: &PickledOutboundGroupSession) -> Shares {
    let delivered = session.shared_with_set.iter();
    let under_way = session.requests.values().flat_map(|(_, shares)| shares.iter());
    let mut found = Shares::new();
    for (user, devices) in delivered.chain(under_way) {
        for (device, share) in devices {
            // A device that was told that it gets no key, and then given it, has it.
            let known = found
                .entry((user.clone(), device.clone()))
                .or_insert_with(|| share.clone());
            if matches!(share, ShareInfo::Shared(_)) {
                *known = share.clone();
            }
        }
    }
    found
}
