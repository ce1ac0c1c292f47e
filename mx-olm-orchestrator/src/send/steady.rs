//! A room whose readers have its key and did not change: its later messages ask nobody anything.
//!
//! # Why
//! Whom a message is for is computed from members, device lists, sessions, policies and what is known of our own device.
//! When all of that was looked at and nothing of it has changed, there is nothing to look at again. That is not followed
//! by its causes, of which one could be forgotten: every write of the store counts as a change that is not named as
//! passing ([`Revision`]), and every change of a member list does. A room counts as ready only after it was looked at
//! from the beginning to the end without a change in between, and it is asked inside of the unit that encrypts, which is
//! alone.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mx_crypto_store::Revision;
use ruma::{OwnedDeviceId, OwnedEventId, OwnedUserId, RoomId};

use super::{
    RotationReason,
    audience::Audience,
    outbox::Parcel,
    policy::Care,
    receipt::{Device, DeviceOutcome, DeviceReceipt, SendReceipt, Warning, readable},
    recipients::Readers,
    share::Shared,
};
use crate::{Orchestrator, rooms::RoomRecord};

/// When something was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    revision: Revision,
    members: u64,
    /// How often our user decided about a device.
    decisions: u64,
}

impl Stamp {
    /// Nothing changed but, perhaps, sessions with devices.
    pub(crate) fn is_as(self, other: Self) -> bool {
        self.has_the_readers_of(other) && self.revision.records == other.revision.records
    }

    /// Neither the room's members nor decisions about devices changed.
    pub(super) fn has_the_readers_of(self, other: Self) -> bool {
        (self.members, self.decisions) == (other.members, other.decisions)
    }
}

/// What was found out about a room's readers.
#[derive(Debug)]
pub(crate) struct Ready {
    care: Care,
    session: String,
    rotation: Option<RotationReason>,
    /// As the first receipt has them. Every message has a receipt of all of them: they are not copied
    /// for each.
    devices: Arc<[DeviceReceipt]>,
    /// As those after it do.
    devices_later: Arc<[DeviceReceipt]>,
    users_without_devices: Arc<[OwnedUserId]>,
    unknown: Vec<OwnedUserId>,
    recipients_added: Vec<OwnedUserId>,
    new_devices: Vec<Device>,
    warnings: Vec<Warning>,
    audience: Option<Audience>,
    /// What was remembered of the room.
    record: RoomRecord,
    /// Devices that could not be given the key for want of a session: they are asked again when it makes sense.
    sessionless: Vec<(OwnedUserId, OwnedDeviceId)>,
    /// Somebody has a receipt that tells what is new in this.
    told: AtomicBool,
    /// When finding it out began.
    stamp: Stamp,
}

impl Ready {
    /// `before`: what was found out for the same message, of which this round shared what was left to share.
    pub(super) fn new(care: Care, readers: Readers, shared: Shared, stamp: Stamp, before: Option<&Self>) -> Self {
        let mut devices = shared.devices;
        if let Some(before) = before.filter(|before| before.session == shared.session) {
            let reached: BTreeSet<_> = before
                .devices
                .iter()
                .filter(|device| device.outcome == DeviceOutcome::Reached)
                .map(|device| (&device.user_id, &device.device_id))
                .collect();
            for device in &mut devices {
                let is_of_before = reached.contains(&(&device.user_id, &device.device_id));
                if device.outcome == DeviceOutcome::AlreadyHad && is_of_before {
                    device.outcome = DeviceOutcome::Reached;
                }
            }
        }
        let mut later = devices.clone();
        for device in &mut later {
            if device.outcome == DeviceOutcome::Reached {
                device.outcome = DeviceOutcome::AlreadyHad;
            }
        }
        Self {
            care,
            session: shared.session,
            rotation: shared.rotation,
            devices: devices.into(),
            devices_later: later.into(),
            users_without_devices: shared.users_without_devices.into(),
            unknown: readers.unknown.into_iter().collect(),
            recipients_added: shared.recipients_added,
            new_devices: shared.new_devices,
            warnings: shared.warnings,
            audience: shared.audience,
            record: shared.record,
            sessionless: readers.sessionless,
            told: AtomicBool::new(false),
            stamp,
        }
    }

    /// What is remembered of the room, as long as the stamp is the same: nobody reads it again for each message, who would
    /// wait for the commit that is under way and so have one of their own.
    pub(super) const fn record(&self) -> &RoomRecord {
        &self.record
    }

    /// Whether this is still what is remembered of the room: its policy, its visibility, whether a new key is due.
    pub(super) fn is_of(&self, record: &RoomRecord) -> bool {
        self.record == *record
    }

    /// How many other devices can read a message.
    pub(super) fn readable_by(&self) -> usize {
        readable(&self.devices)
    }

    /// Somebody has a receipt that tells what is new.
    pub(super) fn was_told(&self) {
        self.told.store(true, Ordering::SeqCst);
    }

    /// Whom the messages are for, where that is to be noted once somebody was told.
    pub(super) fn audience(&self) -> Option<Audience> {
        self.audience.clone()
    }

    /// The receipt of a message. True: it tells what is new, which no receipt that reached anybody has told. A message whose
    /// caller was gone, or that was refused, has told nobody.
    pub(super) fn receipt(&self, parcel: Parcel, event_id: OwnedEventId) -> (SendReceipt, bool) {
        let first = !self.told.load(Ordering::SeqCst);
        let rotation = self.rotation.filter(|_| first);
        let devices = if first { &self.devices } else { &self.devices_later };
        let (recipients_added, new_devices) = match first {
            true => (self.recipients_added.clone(), self.new_devices.clone()),
            false => Default::default(),
        };
        let receipt = SendReceipt {
            room_id: parcel.room,
            event_id,
            transaction_id: parcel.transaction,
            session_id: parcel.session,
            new_session: rotation.is_some(),
            rotation,
            devices: Arc::clone(devices),
            users_without_devices: Arc::clone(&self.users_without_devices),
            users_unknown: self.unknown.clone(),
            recipients_added,
            new_devices,
            warnings: self.warnings.clone(),
        };
        (receipt, first)
    }
}

impl Orchestrator {
    /// What is so now. Inside of a unit of work nothing else can change it.
    pub(super) async fn stamp(&self, room: &RoomId) -> Stamp {
        Stamp {
            revision: self.store().revision(),
            members: self.members().changes(room).await,
            decisions: self.decisions().load(Ordering::SeqCst),
        }
    }

    /// Whether a room is still as it was found.
    pub(super) fn is_steady(&self, ready: &Ready, care: Care, now: Stamp) -> bool {
        let then = ready.stamp;
        if !then.is_as(now) || ready.care != care || !ready.unknown.is_empty() {
            return false;
        }
        if ready.sessionless.is_empty() {
            return true;
        }
        // A device without a session may have one since, or it is time to ask it again.
        then == now && self.none_is_due(&ready.sessionless)
    }
}
