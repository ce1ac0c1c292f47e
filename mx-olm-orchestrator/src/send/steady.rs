//! A room whose readers have its key and did not change: its later messages ask nobody anything.
//!
//! # Why
//! Whom a message is for is computed from members, device lists, sessions, policies and what is known of our own device.
//! When all of that was looked at and nothing of it has changed, there is nothing to look at again. That is not followed
//! by its causes, of which one could be forgotten: every write of the store counts as a change that is not named as
//! passing ([`Revision`]), and every change of a member list does. A room counts as ready only after it was looked at
//! from the beginning to the end without a change in between, and it is asked inside of the unit that encrypts, which is
//! alone.

use mx_crypto_store::Revision;
use ruma::{OwnedDeviceId, OwnedUserId, RoomId};

use super::{audience::Audience, policy::Care, recipients::Readers, share::Shared};
use crate::{DeviceOutcome, Orchestrator, SendReceipt};

/// When something was so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    revision: Revision,
    members: u64,
}

impl Stamp {
    /// Nothing changed but, perhaps, sessions with devices.
    pub(crate) fn is_as(self, other: Self) -> bool {
        self.members == other.members && self.revision.records == other.revision.records
    }
}

/// What was found out about a room's readers.
#[derive(Debug)]
pub(crate) struct Ready {
    care: Care,
    shared: Shared,
    unknown: Vec<OwnedUserId>,
    /// Devices that could not be given the key for want of a session: they are asked again when it makes sense.
    sessionless: Vec<(OwnedUserId, OwnedDeviceId)>,
    /// When finding it out began.
    stamp: Stamp,
}

impl Ready {
    pub(super) fn new(care: Care, readers: Readers, shared: Shared, stamp: Stamp) -> Self {
        Self {
            care,
            shared,
            unknown: readers.unknown.into_iter().collect(),
            sessionless: readers.sessionless,
            stamp,
        }
    }

    /// It was found out again, by sharing what was left to share: whom the key went to in the rounds before, too.
    pub(super) fn after(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| before.shared.session == self.shared.session) else {
            return self;
        };
        let reached: std::collections::BTreeSet<_> = before
            .shared
            .devices
            .iter()
            .filter(|device| device.outcome == DeviceOutcome::Reached)
            .map(|device| (&device.user_id, &device.device_id))
            .collect();
        for device in &mut self.shared.devices {
            if device.outcome == DeviceOutcome::AlreadyHad && reached.contains(&(&device.user_id, &device.device_id)) {
                device.outcome = DeviceOutcome::Reached;
            }
        }
        self
    }

    /// Whom the message that the key was shared for is for, where that is to be noted once it is sent.
    pub(super) fn audience(&self) -> Option<Audience> {
        self.shared.audience.clone()
    }

    /// The receipt of a message. `first`: the key was shared for it.
    pub(super) fn receipt(
        &self,
        parcel: super::outbox::Parcel,
        event_id: ruma::OwnedEventId,
        first: bool,
    ) -> SendReceipt {
        let mut shared = self.shared.clone();
        if !first {
            // All that was new was new for an earlier message.
            shared.rotation = None;
            shared.recipients_added.clear();
            shared.new_devices.clear();
            for device in &mut shared.devices {
                if device.outcome == DeviceOutcome::Reached {
                    device.outcome = DeviceOutcome::AlreadyHad;
                }
            }
        }
        SendReceipt {
            room_id: parcel.room,
            event_id,
            transaction_id: parcel.transaction,
            session_id: parcel.session,
            new_session: shared.rotation.is_some(),
            rotation: shared.rotation,
            devices: shared.devices,
            users_without_devices: shared.users_without_devices,
            users_unknown: self.unknown.clone(),
            recipients_added: shared.recipients_added,
            new_devices: shared.new_devices,
            warnings: shared.warnings,
        }
    }
}

impl Orchestrator {
    /// What is so now. Inside of a unit of work nothing else can change it.
    pub(super) async fn stamp(&self, room: &RoomId) -> Stamp {
        Stamp {
            revision: self.store().revision(),
            members: self.members().changes(room).await,
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
