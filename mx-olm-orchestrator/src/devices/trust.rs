//! What our own user decided about a device: it is blocked, or trusted by its fingerprint.
//!
//! # Why
//! The engine keeps that with the device, and forgets it with the device: a homeserver that leaves a device out of one
//! answer and shows it in the next would unblock it. The decision is therefore kept here, and applied to whatever the
//! homeserver shows.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use matrix_sdk_crypto::{LocalTrust, OlmMachine};
use mx_crypto_store::{Family, RecordId, Unit};
use ruma::{DeviceId, OwnedDeviceId, UserId};
use serde::{Deserialize, Serialize};

use crate::{Error, Orchestrator, Result, machine::Ending};

const TRUST: Family = Family::guarded("device-trust");

/// What our own user decided about a device.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::DeviceTrust;
/// use ruma::user_id;
///
/// for (device, decision) in device.device_trust(user_id!("@friend:example.org")).await? {
///     match decision {
///         DeviceTrust::Blocked => println!("we blocked {device}"),
///         DeviceTrust::Trusted { ed25519 } => println!("we trust {device}, as long as its fingerprint is {ed25519}"),
///         other => println!("{device}: {other:?}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trust", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceTrust {
    /// It is given no room key, and is told `m.blacklisted`.
    Blocked,
    /// It is trusted as long as it has this fingerprint.
    Trusted {
        /// Its Ed25519 key, in unpadded base64.
        ed25519: String,
    },
}

type OfUser = BTreeMap<OwnedDeviceId, DeviceTrust>;

fn id(user: &UserId) -> RecordId {
    RecordId::named(TRUST, &[], user.as_str())
}

impl Orchestrator {
    /// Give the device no room key from now on, also if it is not known yet or goes and comes back. Rooms whose key it
    /// has get a new one with the next send. This very device is never blocked: it gets no keys from itself.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, room: &ruma::RoomId) -> Result<(), mx_olm_orchestrator::Error> {
    /// device.block_device(ruma::user_id!("@friend:example.org"), ruma::device_id!("STOLEN")).await?;
    /// // The others read on; the room's next message has a new key.
    /// let readership = device.readership(room).await?;
    /// println!("{:?}", readership.renewal);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store: nothing is changed then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn block_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        self.decide(user, device, Some(DeviceTrust::Blocked)).await
    }

    /// Trust the device as long as its fingerprint, its Ed25519 key in base64, is this one, which its owner has told us.
    /// One that was blocked is blocked no more. A device that is not known yet is trusted when it comes with that key.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::Error;
    /// use ruma::{device_id, user_id};
    ///
    /// // From the configuration of a machine that is installed tomorrow: it is trusted when it comes with this key.
    /// let told = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    /// match device.trust_device(user_id!("@sensor:example.org"), device_id!("CELLAR"), told).await {
    ///     Err(error @ Error::FingerprintMismatch { .. }) => println!("it is another device: {error}"),
    ///     trusted => trusted?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::FingerprintMismatch`] when the device is known with another one; of the store. Nothing is changed then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn trust_device(&self, user: &UserId, device: &DeviceId, ed25519: &str) -> Result<()> {
        let ed25519 = as_key(ed25519);
        self.decide(user, device, Some(DeviceTrust::Trusted { ed25519 })).await
    }

    /// Forget what was decided about the device: it is neither blocked nor trusted by itself.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    /// # use mx_olm_orchestrator::{Options, Orchestrator};
    /// # let nowhere = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// # let homeserver = mx_transport::Homeserver::new("http://localhost", nowhere)?;
    /// # let store = PickleStore::open(Arc::new(Memory::new()), KeySource::Bytes(StoreKey::from_bytes([7; 32]))).await?;
    /// # let (us, bot) = (ruma::user_id!("@bot:example.org"), ruma::device_id!("BOT"));
    /// # let device = Orchestrator::open(homeserver, store, us, bot, Options::default()).await?;
    /// use mx_olm_orchestrator::DeviceTrust;
    /// use ruma::{device_id, user_id};
    ///
    /// let (friend, phone) = (user_id!("@friend:example.org"), device_id!("PHONE"));
    /// device.block_device(friend, phone).await?;
    /// assert_eq!(device.device_trust(friend).await?.get(phone), Some(&DeviceTrust::Blocked));
    /// device.forget_device_trust(friend, phone).await?;
    /// assert!(device.device_trust(friend).await?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store: nothing is changed then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn forget_device_trust(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        self.decide(user, device, None).await
    }

    /// What was decided about each of a user's devices.
    ///
    /// # Errors
    /// Of the store.
    pub async fn device_trust(&self, user: &UserId) -> Result<BTreeMap<OwnedDeviceId, DeviceTrust>> {
        Ok(self.store().record(&id(user)).await?.unwrap_or_default())
    }

    /// Our user decided something that the next send has to look at.
    pub(crate) fn decided(&self) {
        self.decisions().fetch_add(1, Ordering::SeqCst);
    }

    async fn decide(&self, user: &UserId, device: &DeviceId, decision: Option<DeviceTrust>) -> Result<()> {
        let (user, device) = (user.to_owned(), device.to_owned());
        let this = self.clone();
        self.machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let mut decisions: OfUser = unit.get(&id(&user)).await?.unwrap_or_default();
                    let held = machine.get_device(&user, &device, None).await?;
                    if let Some(DeviceTrust::Trusted { ed25519 }) = &decision
                        && let Some(found) = held.and_then(|held| held.ed25519_key())
                        && found.to_base64() != *ed25519
                    {
                        return Err(Error::FingerprintMismatch {
                            user,
                            device,
                            found: found.to_base64(),
                        });
                    }
                    match decision {
                        Some(decision) => decisions.insert(device.clone(), decision),
                        None => decisions.remove(&device),
                    };
                    unit.put(&id(&user), &decisions)?;
                    apply_to(machine, &user, &device, decisions.get(&device)).await?;
                    this.decided();
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

/// People copy keys in groups, and with the padding of base64.
pub(super) fn as_key(typed: &str) -> String {
    typed
        .chars()
        .filter(|char| !char.is_whitespace() && *char != '=')
        .collect()
}

/// A verification showed that the device has this key. One that is blocked stays so.
pub(crate) async fn was_verified(unit: &Unit, user: &UserId, device: &DeviceId, ed25519: &str) -> Result<()> {
    let mut decisions: OfUser = unit.get(&id(user)).await?.unwrap_or_default();
    if decisions.get(device) == Some(&DeviceTrust::Blocked) {
        return Ok(());
    }
    let ed25519 = ed25519.to_owned();
    decisions.insert(device.to_owned(), DeviceTrust::Trusted { ed25519 });
    Ok(unit.put(&id(user), &decisions)?)
}

/// Apply what was decided about a user's devices to those that the engine knows now.
pub(super) async fn apply(machine: &OlmMachine, unit: &Unit, user: &UserId) -> Result<()> {
    let decisions: OfUser = unit.get(&id(user)).await?.unwrap_or_default();
    for (device, decision) in &decisions {
        apply_to(machine, user, device, Some(decision)).await?;
    }
    Ok(())
}

async fn apply_to(
    machine: &OlmMachine,
    user: &UserId,
    device: &DeviceId,
    decision: Option<&DeviceTrust>,
) -> Result<()> {
    let is_ours = user == machine.user_id() && device == machine.device_id();
    let Some(held) = machine.get_device(user, device, None).await?.filter(|_| !is_ours) else {
        return Ok(());
    };
    let trust = match decision {
        None => LocalTrust::Unset,
        Some(DeviceTrust::Blocked) => LocalTrust::BlackListed,
        Some(DeviceTrust::Trusted { ed25519 }) => match held.ed25519_key() {
            Some(key) if key.to_base64() == *ed25519 => LocalTrust::Verified,
            _ => LocalTrust::Unset,
        },
    };
    if held.local_trust_state() != trust {
        held.set_local_trust(trust).await?;
    }
    Ok(())
}
