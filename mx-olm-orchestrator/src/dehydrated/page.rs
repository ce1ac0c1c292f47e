//! Room keys that were sent to a dehydrated device: out of it, and held against those that are here.

use std::{cmp::Ordering, collections::BTreeSet};

use matrix_sdk_crypto::{
    OlmMachine,
    dehydrated_devices::RehydratedDevice,
    olm::InboundGroupSession,
    store::{CryptoStore, types::DehydratedDeviceKey},
};
use mx_crypto_store::{PickleStore, Unit};
use ruma::{OwnedRoomId, UserId, events::AnyToDeviceEvent, serde::Raw};

use super::{made::Found, make::refused};
use crate::{Result, backup::is_active, machine::Work, receive::decryption_settings};

/// More than a room key ever needs, in bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// A dehydrated device that is open, in memory.
///
/// # Why beside the machine
/// The engine puts what such a device is given into the store of the machine that opened it, over what is there. This one
/// has a store of its own, which nobody else sees.
pub(super) struct Open {
    beside: OlmMachine,
    device: RehydratedDevice,
}

impl Open {
    pub(super) fn new<'a>(user: &'a UserId, key: &'a DehydratedDeviceKey, found: &'a Found) -> Work<'a, Self> {
        Box::pin(async move {
            let beside = Box::pin(OlmMachine::new(user, &found.device)).await;
            let devices = beside.dehydrated_devices();
            let opened = Box::pin(devices.rehydrate(key, &found.device, found.data.clone())).await;
            let device = opened.map_err(refused)?;
            Ok(Self { beside, device })
        })
    }

    /// The room keys of some events. One event after the other: of two keys of one session in one go the engine would keep
    /// the later one, whether it opens more or less.
    pub(super) fn read(&self, events: Vec<Raw<AnyToDeviceEvent>>) -> Work<'_, Vec<InboundGroupSession>> {
        Box::pin(self.read_now(events))
    }

    async fn read_now(&self, events: Vec<Raw<AnyToDeviceEvent>>) -> Result<Vec<InboundGroupSession>> {
        let mut names: BTreeSet<(OwnedRoomId, String)> = BTreeSet::new();
        for event in events {
            if event.json().get().len() > MAX_EVENT_BYTES {
                continue;
            }
            let came = Box::pin(self.device.receive_events(vec![event], &decryption_settings())).await?;
            names.extend(came.into_iter().map(|key| (key.room_id, key.session_id)));
        }
        let mut keys = Vec::with_capacity(names.len());
        for (room, session) in names {
            keys.extend(self.beside.store().get_inbound_group_session(&room, &session).await?);
        }
        Ok(keys)
    }
}

/// Keep those that are new here, or reach further back, or come from their sender where what is here does not. Returns how
/// many.
pub(super) async fn keep(
    machine: &OlmMachine,
    unit: &Unit,
    store: &PickleStore,
    keys: Vec<InboundGroupSession>,
) -> Result<usize> {
    let mut better = Vec::new();
    for key in keys {
        let held = store.get_inbound_group_session(key.room_id(), key.session_id()).await?;
        let is_better = match held {
            None => true,
            Some(held) => {
                let reaches = key.first_known_index().cmp(&held.first_known_index());
                // Who gave the device a key of somebody else's session is not the one whose it is.
                let is_of_the_same = held.sender_key() == key.sender_key();
                let is_better = match reaches {
                    Ordering::Less => is_of_the_same,
                    Ordering::Equal => is_of_the_same && held.has_been_imported() && !key.has_been_imported(),
                    Ordering::Greater => false,
                };
                is_better && connect(&key, &held).await
            }
        };
        if is_better {
            better.push(key);
        }
    }
    let names: Vec<(OwnedRoomId, String)> = better
        .iter()
        .map(|key| (key.room_id().to_owned(), key.session_id().to_owned()))
        .collect();
    store.save_inbound_group_sessions(better, None).await?;
    if !names.is_empty() && is_active(machine, unit).await? {
        store.needs_backup(&names).await?;
    }
    Ok(names.len())
}

/// Whether both are keys of one session, and not only under one name.
async fn connect(one: &InboundGroupSession, other: &InboundGroupSession) -> bool {
    let from = one.first_known_index().max(other.first_known_index());
    let (one, other) = (one.export_at_index(from).await, other.export_at_index(from).await);
    one.session_key.to_base64() == other.session_key.to_base64()
}
