//! Answers to `/keys/query`: what the engine is given of them, and what is remembered of what it refused.
//!
//! # Why
//! An answer comes from a homeserver that may lie. Before the engine sees it, what nobody asked for, what our own
//! server says it failed at, and devices that must never be a recipient are taken out; afterwards every device that was
//! named and is not usable is remembered with its reason (reference: engine, gaps B8, B11, B18 and B19).

mod gone;
mod identities;
mod listed;
mod own;
mod trust;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use matrix_sdk_crypto::{OlmMachine, UserIdentity, types::requests::AnyIncomingResponse};
use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, TransactionId, UserId, api::client::keys::get_keys,
};

use self::verdict::{Identity, judge};
pub(crate) use self::{gone::was_deleted, own::OwnDevice, trust::was_verified};
pub use self::{
    identities::UserIdentityStatus,
    listed::{ListedDevice, UserDevices},
    trust::DeviceTrust,
};
use crate::{
    DeviceRejected, Event, IdentityChanged, Orchestrator, Result, UnusableReason, identity::note_own_identity,
    machine::Ending, receive::inbox, trust_manifest::note_drift,
};

const UNUSABLE: Family = Family::new("unusable-devices");

/// Devices and why they cannot be used.
pub(crate) type Unusable = BTreeMap<OwnedDeviceId, UnusableReason>;

impl Orchestrator {
    /// Take the answer to a query for `asked`: one unit of work.
    pub(crate) async fn take_query(
        &self,
        request: &TransactionId,
        asked: BTreeSet<OwnedUserId>,
        answer: get_keys::v3::Response,
    ) -> Result<()> {
        let (request, now_ms) = (request.to_owned(), self.now_ms());
        let manifest = self.manifest().await?;
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    own::note(machine, unit, &answer).await?;
                    let mut answer = answer;
                    keep_what_was_asked(&mut answer, &asked, machine.user_id().server_name());
                    let mut rejected = BTreeMap::new();
                    let mut masters = BTreeMap::new();
                    let mut known = BTreeMap::new();
                    for (user, devices) in &mut answer.device_keys {
                        let unusable = unusable(machine, user, devices).await?;
                        devices.retain(|device, _| unusable.get(device).is_none_or(|reason| !is_taken_out(reason)));
                        rejected.insert(user.clone(), unusable);
                        masters.insert(user.clone(), master_key(machine, user).await?);
                        known.insert(user.clone(), gone::known(machine, user).await?);
                    }
                    let named: BTreeMap<OwnedUserId, BTreeSet<OwnedDeviceId>> = answer
                        .device_keys
                        .iter()
                        .map(|(user, devices)| (user.clone(), devices.keys().cloned().collect()))
                        .collect();
                    let incoming = AnyIncomingResponse::KeysQuery(&answer);
                    Box::pin(machine.mark_request_as_sent(&request, incoming)).await?;
                    for (user, before) in &known {
                        gone::remember(machine, unit, user, before).await?;
                    }
                    let mut events = Vec::new();
                    for (user, mut unusable) in rejected {
                        let held = machine.get_user_devices(&user, None).await?;
                        for device in named.get(&user).into_iter().flatten() {
                            if held.get(device).is_none() {
                                unusable.entry(device.clone()).or_insert(UnusableReason::Refused);
                            }
                        }
                        remember(unit, &user, unusable, &mut events).await?;
                        trust::apply(machine, unit, &user).await?;
                        if manifest.is_some() {
                            note_drift(machine, unit, &manifest, &user, &mut events).await?;
                        }
                    }
                    if masters.contains_key(machine.user_id()) {
                        note_own_identity(machine, unit, now_ms, &mut events).await?;
                    }
                    for (user, before) in masters {
                        events.extend(identity_change(machine, user, before).await?);
                    }
                    inbox::append(unit, &events).await?;
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// Devices that the homeserver names for `user` and that are not usable as it shows them.
pub(crate) async fn unusable_devices(unit: &Unit, user: &UserId) -> Result<Unusable> {
    Ok(unit
        .get(&RecordId::named(UNUSABLE, &[], user.as_str()))
        .await?
        .unwrap_or_default())
}

/// The servers that an answer names as failed.
pub(crate) fn servers(failures: &BTreeMap<String, serde_json::Value>) -> BTreeSet<OwnedServerName> {
    failures
        .keys()
        .filter_map(|name| OwnedServerName::try_from(name.as_str()).ok())
        .collect()
}

/// Unknown is not empty: who was not asked about, and whose server failed, is left out. The engine takes everybody who
/// is in an answer as known from then on.
fn keep_what_was_asked(answer: &mut get_keys::v3::Response, asked: &BTreeSet<OwnedUserId>, own_server: &ServerName) {
    let failed = servers(&answer.failures);
    if failed.contains(own_server) {
        // Our own server cannot fail at itself: the whole answer is worth nothing.
        tracing::warn!("the homeserver names itself as failed in an answer to /keys/query, which is not used");
        answer.device_keys.clear();
    }
    answer
        .device_keys
        .retain(|user, devices| asked.contains(user) && !(devices.is_empty() && failed.contains(user.server_name())));
    let kept: BTreeSet<OwnedUserId> = answer.device_keys.keys().cloned().collect();
    answer.master_keys.retain(|user, _| kept.contains(user));
    answer.self_signing_keys.retain(|user, _| kept.contains(user));
    answer.user_signing_keys.retain(|user, _| kept.contains(user));
}

/// The engine would take it as a recipient. What does not verify stays in: a known device keeps its keys then, where
/// one that is left out is deleted.
const fn is_taken_out(reason: &UnusableReason) -> bool {
    matches!(
        reason,
        UnusableReason::MissingKey
            | UnusableReason::OwnKeyReflected
            | UnusableReason::SharedKey
            | UnusableReason::NoOlmSupport
            | UnusableReason::NoMegolmSupport
    )
}

type Shown = BTreeMap<OwnedDeviceId, ruma::serde::Raw<ruma::encryption::DeviceKeys>>;

/// Which of the devices that the homeserver shows for `user` cannot be used, and why.
async fn unusable(machine: &OlmMachine, user: &UserId, shown: &Shown) -> Result<Unusable> {
    let held = machine.get_user_devices(user, None).await?;
    let ours = machine.identity_keys();
    let mut bad = Unusable::new();
    let mut good: BTreeMap<OwnedDeviceId, Identity> = BTreeMap::new();
    for (device, raw) in shown {
        if user == machine.user_id() && device == machine.device_id() {
            continue;
        }
        let identity = match judge(user, device, raw) {
            Ok(identity) => identity,
            Err(reason) => {
                bad.insert(device.clone(), reason);
                continue;
            }
        };
        let known = held.get(device).and_then(|held| held.ed25519_key());
        if identity.curve25519 == ours.curve25519 {
            bad.insert(device.clone(), UnusableReason::OwnKeyReflected);
        } else if let Some(old) = known.filter(|known| *known != identity.ed25519) {
            let (old, new) = (old.to_base64(), identity.ed25519.to_base64());
            bad.insert(device.clone(), UnusableReason::KeyConflict { old, new });
        } else {
            good.insert(device.clone(), identity);
        }
    }
    // Olm names a sender by its Curve25519 key: two devices with one key could not be told apart.
    for (device, identity) in &good {
        let is_held = |device: &OwnedDeviceId| {
            let key = held.get(device).and_then(|held| held.curve25519_key());
            key == Some(identity.curve25519)
        };
        let mut others = good
            .iter()
            .filter(|(other, keys)| *other != device && keys.curve25519 == identity.curve25519)
            .peekable();
        if others.peek().is_some() && (!is_held(device) || others.any(|(other, _)| is_held(other))) {
            bad.insert(device.clone(), UnusableReason::SharedKey);
        }
    }
    Ok(bad)
}

/// Keep the reasons, and tell the app what is new and alarming.
async fn remember(unit: &Unit, user: &UserId, unusable: Unusable, events: &mut Vec<Event>) -> Result<()> {
    let id = RecordId::named(UNUSABLE, &[], user.as_str());
    let before: Option<Unusable> = unit.get(&id).await?;
    let known = before.as_ref();
    for (device, reason) in &unusable {
        if known.and_then(|known| known.get(device)) == Some(reason) {
            continue;
        }
        tracing::warn!(%user, %device, reason = reason.code(), "a device that the homeserver names is not used");
        if reason.is_alarming() {
            events.push(Event::DeviceRejected(DeviceRejected {
                user_id: user.to_owned(),
                device_id: device.clone(),
                reason: reason.clone(),
            }));
        }
    }
    match before {
        Some(_) if unusable.is_empty() => unit.delete(&id)?,
        None if unusable.is_empty() => {}
        Some(before) if before == unusable => {}
        _ => unit.put(&id, &unusable)?,
    }
    Ok(())
}

/// A user's master key, and whether the user was verified by it.
struct Master {
    key: Option<String>,
    verified: bool,
}

async fn master_key(machine: &OlmMachine, user: &UserId) -> Result<Option<Master>> {
    let identity = machine.get_identity(user, None).await?;
    Ok(identity.map(|identity| {
        let key = match &identity {
            UserIdentity::Own(own) => own.master_key().get_first_key(),
            UserIdentity::Other(other) => other.master_key().get_first_key(),
        };
        Master {
            key: key.map(|key| key.to_base64()),
            verified: identity.is_verified() || identity.was_previously_verified(),
        }
    }))
}

async fn identity_change(machine: &OlmMachine, user: OwnedUserId, before: Option<Master>) -> Result<Option<Event>> {
    let Some(before) = before else { return Ok(None) };
    let master_key = master_key(machine, &user).await?.and_then(|master| master.key);
    if master_key == before.key {
        return Ok(None);
    }
    tracing::warn!(%user, verified = before.verified, "a user's cross-signing identity was replaced");
    Ok(Some(Event::IdentityChanged(IdentityChanged {
        user_id: user,
        was_verified: before.verified,
        master_key,
    })))
}
