//! Our device as others see it, held against what is here: identity keys, algorithms, signature, one-time keys.

use std::time::Duration;

use matrix_sdk_crypto::{DeviceData, OlmMachine, types::DeviceKeys, vodozemac};
use mx_transport::Call;
use ruma::{
    OneTimeKeyAlgorithm,
    api::client::{
        filter::{FilterDefinition, RoomFilter},
        keys::get_keys,
        sync::sync_events,
    },
    presence::PresenceState,
};
use serde::Serialize;

use super::status::PublicKeys;
use crate::{Orchestrator, Result, machine::Ending};

/// How the homeserver shows our device to others.
///
/// ```
/// use mx_olm_orchestrator::ShownDevice;
///
/// fn can_be_given_keys(shown: &ShownDevice) -> bool {
///     match shown {
///         ShownDevice::As { signed, algorithms, .. } => *signed && algorithms.iter().any(|one| one == "m.megolm.v1.aes-sha2"),
///         // Nobody who asks the homeserver learns of this device.
///         _ => false,
///     }
/// }
/// assert!(!can_be_given_keys(&ShownDevice::Absent));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "shown", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ShownDevice {
    /// It shows none.
    Absent,
    /// It shows something that is no device.
    Malformed,
    /// It shows these keys.
    As {
        /// The public Ed25519 key: the fingerprint.
        ed25519: String,
        /// The public Curve25519 key.
        curve25519: String,
        /// What the device says to speak.
        algorithms: Vec<String>,
        /// The device's own signature of its keys verifies.
        signed: bool,
    },
}

/// Our device as others see it, and as it is here.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::ShownDevice;
///
/// let keys = device.inspect_keys().await?;
/// match &keys.shown {
///     ShownDevice::As { ed25519, signed: true, .. } if *ed25519 == keys.ed25519 => println!("others see this device as it is"),
///     other => println!("others see it as {other:?}"),
/// }
/// println!("{} one-time keys there, {} here", keys.one_time_keys, keys.one_time_keys_here);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct KeyInspection {
    /// The public Ed25519 key that is here.
    pub ed25519: String,
    /// The public Curve25519 key that is here.
    pub curve25519: String,
    /// How the homeserver shows our device.
    pub shown: ShownDevice,
    /// One-time keys that the homeserver says to have.
    pub one_time_keys: u64,
    /// One-time keys whose private half is here: those on the homeserver, and those that were claimed and not used yet.
    pub one_time_keys_here: u64,
    /// The homeserver has a fallback key that nobody has used yet. `None`: it does not say.
    pub fallback_key: Option<bool>,
}

impl Orchestrator {
    /// Look at our device as others see it. Nothing is changed, here or there: the counts come from a sync that asks for
    /// nothing else and confirms nothing.
    ///
    /// # Errors
    /// Of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn inspect_keys(&self) -> Result<KeyInspection> {
        let (ours, here) = self
            .machine()
            .unit(|machine, _| {
                Box::pin(async {
                    let here = one_time_keys_here(machine).await?;
                    Ok(Ending::Commit((PublicKeys::of(machine), here)))
                })
            })
            .await?;
        let shown = self.shown().await?;
        let counts = self.homeserver().send_with(of_nothing(), Call::repeatable()).await?;
        let one_time_keys = counts
            .device_one_time_keys_count
            .get(&OneTimeKeyAlgorithm::SignedCurve25519);
        let unused = counts.device_unused_fallback_key_types;
        Ok(KeyInspection {
            ed25519: ours.ed25519,
            curve25519: ours.curve25519,
            shown,
            one_time_keys: one_time_keys.map_or(0, |count| (*count).into()),
            one_time_keys_here: here,
            fallback_key: unused.map(|unused| unused.contains(&OneTimeKeyAlgorithm::SignedCurve25519)),
        })
    }

    async fn shown(&self) -> Result<ShownDevice> {
        let mut request = get_keys::v3::Request::new();
        request
            .device_keys
            .insert(self.user_id().to_owned(), vec![self.device_id().to_owned()]);
        let answer = self.homeserver().send_with(request, Call::repeatable()).await?;
        let raw = answer
            .device_keys
            .get(self.user_id())
            .and_then(|devices| devices.get(self.device_id()));
        let Some(raw) = raw else {
            return Ok(ShownDevice::Absent);
        };
        let Ok(keys) = raw.deserialize_as_unchecked::<DeviceKeys>() else {
            return Ok(ShownDevice::Malformed);
        };
        Ok(ShownDevice::As {
            ed25519: keys.ed25519_key().map(|key| key.to_base64()).unwrap_or_default(),
            curve25519: keys.curve25519_key().map(|key| key.to_base64()).unwrap_or_default(),
            algorithms: keys.algorithms.iter().map(ToString::to_string).collect(),
            // The engine takes nobody's keys without looking at their signature.
            signed: DeviceData::try_from(&keys).is_ok(),
        })
    }
}

/// A sync that shows nothing but the counts of our keys. It begins anew, and so confirms no to-device message.
fn of_nothing() -> sync_events::v3::Request {
    let mut filter = FilterDefinition::empty();
    let mut rooms = RoomFilter::empty();
    rooms.rooms = Some(Vec::new());
    filter.room = rooms;
    filter.presence.types = Some(Vec::new());
    filter.account_data.types = Some(Vec::new());
    let mut request = sync_events::v3::Request::new();
    request.filter = Some(filter.into());
    request.set_presence = PresenceState::Offline;
    request.timeout = Some(Duration::ZERO);
    request
}

async fn one_time_keys_here(machine: &OlmMachine) -> Result<u64> {
    let Some(account) = machine.store().load_account().await? else {
        return Ok(0);
    };
    let olm = vodozemac::olm::Account::from_pickle(account.pickle().pickle);
    Ok(u64::try_from(olm.stored_one_time_key_count()).unwrap_or(u64::MAX))
}
