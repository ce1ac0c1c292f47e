//! The devices of a user, as the homeserver shows them now and as they stand here.

use std::collections::{BTreeMap, BTreeSet};

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::Unit;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::Serialize;

use super::{DeviceTrust, unusable_devices};
use crate::{
    Error, Orchestrator, ReaderIdentity, ReaderTrust, Result, UnusableReason,
    machine::Ending,
    send::readership::{identity_of, trust_of},
};

/// The devices of a user.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let listed = device.devices(ruma::user_id!("@friend:example.org")).await?;
/// println!("{}", listed.identity.describe());
/// for one in listed.devices.iter().filter(|one| one.shown && one.unusable.is_none()) {
///     println!("{} {:?}: {}", one.device_id, one.ed25519, one.trust.describe());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UserDevices {
    /// Whose.
    pub user_id: OwnedUserId,
    /// How their identity stands.
    pub identity: ReaderIdentity,
    /// Their devices, by their ids. One that was decided about is here even where the homeserver shows it no more.
    pub devices: Vec<ListedDevice>,
}

/// A device, as it is shown and as it stands here.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let listed = device.devices(ruma::user_id!("@friend:example.org")).await?;
/// for device in listed.devices.iter().filter(|device| !device.own) {
///     match &device.unusable {
///         Some(reason) => println!("{} is given no key: {}", device.device_id, reason.describe()),
///         None => println!("{} {}: {}", device.device_id, device.ed25519.as_deref().unwrap_or("?"), device.trust.describe()),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ListedDevice {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// It is this very device.
    pub own: bool,
    /// What its owner calls it. It is not signed: the homeserver can say anything.
    pub name: Option<String>,
    /// Its fingerprint.
    pub ed25519: Option<String>,
    /// How far it is trusted.
    pub trust: ReaderTrust,
    /// Why it is given no key. `None`: nothing is wrong with its keys.
    pub unusable: Option<UnusableReason>,
    /// The homeserver shows it.
    pub shown: bool,
    /// What our own user decided about it.
    pub decision: Option<DeviceTrust>,
}

impl Orchestrator {
    /// The devices of a user: they are asked for, where they are not known or have changed since. Nobody is given a key.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// let friend = device.devices(ruma::user_id!("@friend:example.org")).await?;
    /// let unsigned = friend.devices.iter().filter(|device| device.trust == mx_olm_orchestrator::ReaderTrust::Unsigned);
    /// println!("{}, and {} devices that nobody has signed", friend.identity.describe(), unsigned.count());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::DevicesUnknown`]; of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn devices(&self, user: &UserId) -> Result<UserDevices> {
        let mut failed = BTreeSet::new();
        let user = user.to_owned();
        let unknown = self.query_devices(&BTreeSet::from([user.clone()]), &mut failed).await?;
        if unknown.contains(&user) {
            return Err(Error::DevicesUnknown { user });
        }
        let decided = self.device_trust(&user).await?;
        let own = (*user == *self.user_id()).then(|| self.device_id().to_owned());
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move { Ok(Ending::Commit(listed(machine, unit, user, decided, own).await?)) })
            })
            .await
    }
}

async fn listed(
    machine: &OlmMachine,
    unit: &Unit,
    user_id: OwnedUserId,
    mut decided: BTreeMap<OwnedDeviceId, DeviceTrust>,
    own: Option<OwnedDeviceId>,
) -> Result<UserDevices> {
    let mut unusable = unusable_devices(unit, &user_id).await?;
    let held = machine.get_user_devices(&user_id, None).await?;
    let mut named: BTreeSet<OwnedDeviceId> = held.keys().map(ToOwned::to_owned).collect();
    let shown: BTreeSet<OwnedDeviceId> = named.iter().chain(unusable.keys()).cloned().collect();
    named.extend(unusable.keys().chain(decided.keys()).cloned());
    let mut devices = Vec::new();
    for device_id in named {
        let unusable = unusable.remove(&device_id);
        let device = held.get(&device_id);
        let usable = device.as_ref().filter(|_| unusable.is_none());
        let decision = decided.remove(&device_id);
        let trust = match (usable, &decision) {
            (Some(device), _) => trust_of(device),
            (None, Some(DeviceTrust::Blocked)) => ReaderTrust::Blocked,
            (None, _) => ReaderTrust::Unusable,
        };
        devices.push(ListedDevice {
            own: own.as_ref() == Some(&device_id),
            name: device
                .as_ref()
                .and_then(|device| device.display_name().map(ToOwned::to_owned)),
            ed25519: usable
                .and_then(|device| device.ed25519_key())
                .map(|key| key.to_base64()),
            trust,
            unusable,
            shown: shown.contains(&device_id),
            decision,
            device_id,
        });
    }
    Ok(UserDevices {
        identity: identity_of(machine, &user_id).await?,
        user_id,
        devices,
    })
}
