//! What an app is told about identities, the key backup, the dehydrated device and the trust manifest.

use ruma::{OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Serialize};

use crate::{BackupHalt, Drift, IdentityStanding};

/// A user whose cross-signing identity was replaced.
///
/// ```no_run
/// # use mx_olm_orchestrator::{IdentityChanged, Orchestrator};
/// # async fn example(device: Orchestrator, changed: IdentityChanged) -> Result<(), mx_olm_orchestrator::Error> {
/// println!("{} has another identity, was verified: {}", changed.user_id, changed.was_verified);
/// if let Some(key) = changed.master_key {
///     // When somebody has asked the user, who says that this is right.
///     device.acknowledge_identity_change(&changed.user_id, &key).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct IdentityChanged {
    /// Whose identity.
    pub user_id: OwnedUserId,
    /// The identity that was replaced had been verified by us: sends to the user are refused until the user is verified
    /// again or the change is acknowledged.
    pub was_verified: bool,
    /// The public master key that the user has now, which an acknowledgement names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key: Option<String>,
}

/// Our own identity, when it is not in order any more.
///
/// ```
/// use mx_olm_orchestrator::{Event, IdentityStanding, OwnIdentity};
///
/// fn is_urgent(event: &Event) -> bool {
///     // Somebody with our password has made another identity, or we have, elsewhere.
///     matches!(event, Event::OwnIdentity(OwnIdentity { standing: IdentityStanding::Replaced, .. }))
/// }
/// # let _ = is_urgent;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct OwnIdentity {
    /// How it stands.
    pub standing: IdentityStanding,
    /// What to do, in one sentence.
    pub advice: String,
}

/// The key backup, when it is not used any more.
///
/// ```
/// use mx_olm_orchestrator::{BackupHalt, BackupStopped, Event};
///
/// fn line(event: &Event) -> Option<String> {
///     match event {
///         Event::BackupStopped(BackupStopped { version, because: BackupHalt::Replaced, .. }) => {
///             Some(format!("another device has made a new backup in place of version {version}"))
///         }
///         Event::BackupStopped(stopped) => Some(stopped.advice.clone()),
///         _ => None,
///     }
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BackupStopped {
    /// The version that was used.
    pub version: String,
    /// Why it is not.
    pub because: BackupHalt,
    /// What to do, in one sentence.
    pub advice: String,
}

/// The account's dehydrated device, when it is not opened: the room keys that it was sent are not here. It stays on the
/// homeserver until somebody makes a new one.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct DehydratedDeviceNotOpened {
    /// The device. `None`: the homeserver did not show it.
    pub device_id: Option<OwnedDeviceId>,
    /// The stable code of the last error, such as `dehydrated_device_rejected`.
    pub code: String,
    /// What it says.
    pub advice: String,
}

/// Differences between the trust manifest and what there is.
///
/// ```no_run
/// # fn example(event: &mx_olm_orchestrator::Event) {
/// use mx_olm_orchestrator::Event;
///
/// match event {
///     Event::TrustDrift(drift) => drift.differences.iter().for_each(|difference| println!("{difference}")),
///     Event::OwnIdentity(own) => println!("{}", own.advice),
///     Event::BackupStopped(stopped) => println!("{}", stopped.advice),
///     Event::DehydratedDeviceNotOpened(not) => println!("not opened [{}]: {}", not.code, not.advice),
///     _ => {}
/// }
/// # }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TrustDrift {
    /// Each difference.
    pub differences: Vec<Drift>,
}
