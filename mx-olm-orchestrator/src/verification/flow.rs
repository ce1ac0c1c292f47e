//! The record of one verification under way.

use matrix_sdk_crypto::{
    OlmMachine, Verification as EngineVerification, VerificationRequestState, types::requests::ToDeviceRequest,
};
use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomId, TransactionId,
    events::{
        AnyToDeviceEventContent, ToDeviceEventType,
        key::verification::cancel::{
            CancelCode, KeyVerificationCancelEventContent, ToDeviceKeyVerificationCancelEventContent,
        },
        relation::Reference,
    },
    serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde::{Deserialize, Serialize};

use super::{
    VerificationId, VerificationKeys, VerificationShown, VerificationState,
    mail::{Mail, Parcel},
    state::Known,
};
use crate::Result;

const VERIFICATIONS: Family = Family::new("verifications");

/// More records than this are never read at once, nor written.
pub(super) const MOST: usize = 64;

/// A verification under way, or one that has ended and whose other side is still to be told.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct Flow {
    pub(super) id: VerificationId,
    pub(super) room: Option<OwnedRoomId>,
    /// The device that takes part.
    pub(super) device: Option<OwnedDeviceId>,
    /// The devices that were asked; none: whoever is in the room.
    pub(super) asked: Vec<OwnedDeviceId>,
    pub(super) by_us: bool,
    /// We have answered: the other side waits for us.
    pub(super) accepted: bool,
    pub(super) began_ms: u64,
    /// The keys that it is about, from the moment on when it started.
    pub(super) keys: Option<VerificationKeys>,
    /// What was there to compare, once there was: nothing else is confirmed.
    #[serde(default)]
    pub(super) compared: Option<String>,
    /// It has ended, and the other side is to be told so.
    pub(super) farewell: Option<Farewell>,
}

/// What the other side is told at the end.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub(super) struct Farewell {
    pub(super) code: CancelCode,
    pub(super) reason: String,
}

fn record(id: &VerificationId) -> RecordId {
    RecordId::named(VERIFICATIONS, &[id.user_id.as_str()], &id.flow_id)
}

/// The list of users with whom there are some: records are found by their group.
fn index() -> RecordId {
    RecordId::named(VERIFICATIONS, &[], "under-way")
}

/// All of them, in the order in which they began.
pub(super) async fn all(unit: &Unit) -> Result<Vec<Flow>> {
    let ids: Vec<VerificationId> = unit.get(&index()).await?.unwrap_or_default();
    let mut flows = Vec::with_capacity(ids.len());
    for id in ids {
        flows.extend(find(unit, &id).await?);
    }
    Ok(flows)
}

pub(super) async fn find(unit: &Unit, id: &VerificationId) -> Result<Option<Flow>> {
    Ok(unit.get(&record(id)).await?)
}

impl Flow {
    /// Whether it stands behind where it was when something could be compared, or shows something else to compare.
    pub(super) fn began_anew(&self, state: &VerificationState, compared: Option<&String>) -> bool {
        let is_back = matches!(
            state,
            VerificationState::Requested
                | VerificationState::Ready { .. }
                | VerificationState::Started
                | VerificationState::ShowingQr
        );
        self.compared
            .as_ref()
            .is_some_and(|before| is_back || compared.is_some_and(|now| now != before))
    }

    /// Write it, for the first time or again.
    pub(super) async fn keep(&self, unit: &Unit) -> Result<()> {
        let mut ids: Vec<VerificationId> = unit.get(&index()).await?.unwrap_or_default();
        if !ids.contains(&self.id) {
            ids.push(self.id.clone());
            unit.put(&index(), &ids)?;
        }
        Ok(unit.put(&record(&self.id), self)?)
    }

    pub(super) fn known(&self, machine: &OlmMachine) -> Known {
        let (user, flow) = (&self.id.user_id, &self.id.flow_id);
        Known {
            request: machine.get_verification_request(user, flow),
            verification: machine.get_verification(user, flow),
        }
    }

    /// Whether it was asked for, and nobody has accepted it.
    pub(super) fn is_unanswered(&self, machine: &OlmMachine) -> bool {
        let state = self.known(machine).request.map(|request| request.state());
        matches!(
            state,
            Some(VerificationRequestState::Created { .. } | VerificationRequestState::Requested { .. })
        )
    }

    /// The engine lets go of it. What it would say to the other side, we say ourselves: with the code that is right.
    pub(super) fn drop_in_engine(&self, machine: &OlmMachine) {
        let known = self.known(machine);
        if let Some(request) = known.request {
            drop(request.cancel());
        }
        match known.verification {
            Some(EngineVerification::SasV1(sas)) => drop(sas.cancel()),
            Some(EngineVerification::QrV1(qr)) => drop(qr.cancel()),
            _ => {}
        }
    }

    pub(super) fn shown(&self, state: VerificationState) -> VerificationShown {
        VerificationShown {
            id: self.id.clone(),
            room_id: self.room.clone(),
            device_id: self.device.clone(),
            by_us: self.by_us,
            began_ms: self.began_ms,
            state,
            keys: self.keys.clone(),
        }
    }

    /// Tell the other side that it has ended.
    pub(super) fn goodbye(&self) -> Option<Mail> {
        let Farewell { code, reason } = self.farewell.clone()?;
        let parcel = match &self.room {
            Some(room) => {
                let event = OwnedEventId::try_from(self.id.flow_id.as_str()).ok()?;
                let content = KeyVerificationCancelEventContent::new(reason, code, Reference::new(event));
                Parcel::Room {
                    room: room.clone(),
                    event_type: "m.key.verification.cancel".to_owned(),
                    content: serde_json::to_value(content).ok()?,
                }
            }
            None => Parcel::ToDevice(self.cancel_to_devices(reason, code)?),
        };
        Some(Mail::new(self.id.clone(), parcel).farewell())
    }

    fn cancel_to_devices(&self, reason: String, code: CancelCode) -> Option<ToDeviceRequest> {
        let content = ToDeviceKeyVerificationCancelEventContent::new(self.id.flow_id.as_str().into(), reason, code);
        let content = Raw::new(&AnyToDeviceEventContent::KeyVerificationCancel(content)).ok()?;
        let devices: Vec<DeviceIdOrAllDevices> = match &self.device {
            Some(device) => vec![device.clone().into()],
            None if self.asked.is_empty() => vec![DeviceIdOrAllDevices::AllDevices],
            None => self.asked.iter().cloned().map(Into::into).collect(),
        };
        let to_each = devices.into_iter().map(|device| (device, content.clone())).collect();
        Some(ToDeviceRequest {
            event_type: ToDeviceEventType::KeyVerificationCancel,
            txn_id: TransactionId::new(),
            messages: std::iter::once((self.id.user_id.clone(), to_each)).collect(),
        })
    }
}

/// Nothing of it is left to do.
pub(super) async fn forget(unit: &Unit, id: &VerificationId) -> Result<()> {
    let mut ids: Vec<VerificationId> = unit.get(&index()).await?.unwrap_or_default();
    ids.retain(|known| known != id);
    if ids.is_empty() {
        unit.delete(&index())?;
    } else {
        unit.put(&index(), &ids)?;
    }
    Ok(unit.delete(&record(id))?)
}
