//! Whom a room's last message was for, so that a receipt can say who and what is new.

use std::collections::{BTreeMap, BTreeSet};

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use ruma::{OwnedDeviceId, OwnedUserId, RoomId};
use serde::{Deserialize, Serialize};

use super::receipt::{Device, DeviceReceipt};
use crate::{Orchestrator, Result, machine::Ending};

const AUDIENCES: Family = Family::new("audiences").passing();

/// Whom a message was for, whether they could be given the key or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Audience {
    /// The Megolm session that encrypted it.
    pub(super) session_id: String,
    pub(crate) users: BTreeMap<OwnedUserId, BTreeSet<OwnedDeviceId>>,
}

impl Audience {
    pub(super) fn new(session_id: &str, users: &BTreeSet<OwnedUserId>, devices: &[DeviceReceipt]) -> Self {
        let mut audience = Self {
            session_id: session_id.to_owned(),
            users: users.iter().map(|user| (user.clone(), BTreeSet::new())).collect(),
        };
        for device in devices {
            let known = audience.users.entry(device.user_id.clone()).or_default();
            known.insert(device.device_id.clone());
        }
        audience
    }

    /// Users who were not among those of `last`, and new devices of those who were.
    pub(super) fn since(&self, last: &Self) -> (Vec<OwnedUserId>, Vec<Device>) {
        let mut users = Vec::new();
        let mut devices = Vec::new();
        for (user, now) in &self.users {
            match last.users.get(user) {
                None => users.push(user.clone()),
                Some(before) => devices.extend(now.difference(before).map(|device| Device {
                    user_id: user.clone(),
                    device_id: device.clone(),
                })),
            }
        }
        (users, devices)
    }

    fn id(room: &RoomId) -> RecordId {
        RecordId::named(AUDIENCES, &[], room.as_str())
    }

    pub(super) async fn load(unit: &Unit, room: &RoomId) -> Result<Option<Self>> {
        Ok(unit.get(&Self::id(room)).await?)
    }

    pub(crate) async fn committed(store: &PickleStore, room: &RoomId) -> Result<Option<Self>> {
        Ok(store.record(&Self::id(room)).await?)
    }
}

impl Orchestrator {
    /// Somebody has a receipt for this audience. The message is sent, whatever becomes of the note: without it the
    /// next receipt names the same people and devices as new again.
    pub(super) async fn note_audience(&self, room: &RoomId, audience: Option<Audience>) {
        let Some(audience) = audience else { return };
        let id = Audience::id(room);
        let noted = self
            .machine()
            .unit(move |_, unit| {
                Box::pin(async move {
                    unit.put(&id, &audience)?;
                    Ok(Ending::Commit(()))
                })
            })
            .await;
        if let Err(error) = noted {
            tracing::warn!(code = error.code(), "whom a message was for could not be noted");
        }
    }
}
