//! A trust manifest: who is who in a controlled deployment, written down, and every difference from it named.
//!
//! # Why
//! Verification by hand does not scale to a fleet, and trust on first use believes whoever comes first. A file that lists
//! users with their master keys, or devices with their fingerprints, can be reviewed, signed and rolled out like any
//! other configuration. What differs from it fails closed: nothing is sent to a room while a reader differs.

mod check;
mod file;

use std::{collections::BTreeMap, fmt, io, path::PathBuf, sync::Arc};

use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

pub use self::file::ManifestFile;
pub(crate) use self::{
    check::{note_drift, refuse_drift, standing, standing_of_nobody},
    file::Kept,
};

/// The manifest that counts, if there is one.
pub(crate) type Manifest = Option<Arc<TrustManifest>>;

/// Who is who.
///
/// As JSON: `{"version": 1, "users": {"@bob:example.org": {"master_key": "…", "devices": {"BDEV": "…"}}}}`. A device is
/// good when it is listed with its fingerprint, or when the identity whose master key is listed has signed it.
///
/// ```
/// use mx_olm_orchestrator::TrustManifest;
///
/// let manifest: TrustManifest = serde_json::from_str(
///     r#"{"version": 1, "users": {"@bob:example.org": {"devices": {"BDEV": "uY7K0dLV0pwK6nrDkNHWKMtCQSyLVb1aXzTpZxB5d9I"}}}}"#,
/// )?;
/// assert_eq!(manifest.users.len(), 1);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TrustManifest {
    /// The version of this format: 1.
    pub version: u32,
    /// What becomes of users who are not listed.
    #[serde(default)]
    pub unlisted: Unlisted,
    /// The users.
    pub users: BTreeMap<OwnedUserId, ListedUser>,
}

/// What becomes of users whom a manifest does not list.
///
/// ```
/// use mx_olm_orchestrator::{TrustManifest, Unlisted};
///
/// let manifest = TrustManifest::parse(r#"{"version": 1, "unlisted": "allow", "users": {}}"#)?;
/// assert_eq!(manifest.unlisted, Unlisted::Allow);
/// let manifest = TrustManifest::parse(r#"{"version": 1, "users": {}}"#)?;
/// assert_eq!(manifest.unlisted, Unlisted::Refuse, "who is not listed is not forgotten");
/// # Ok::<_, mx_olm_orchestrator::ManifestError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unlisted {
    /// A room with one of them refuses every send. Our own user need not be listed.
    #[default]
    Refuse,
    /// They are treated as without a manifest.
    Allow,
}

/// A user in a manifest.
///
/// ```
/// use mx_olm_orchestrator::TrustManifest;
///
/// // One device, by its fingerprint, and no other one of the user.
/// let manifest = TrustManifest::parse(r#"{"version": 1, "users": {"@bot:example.org":
///     {"devices": {"BOT": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}}}"#)?;
/// let listed = &manifest.users[ruma::user_id!("@bot:example.org")];
/// assert_eq!((listed.devices.len(), &listed.master_key), (1, &None));
/// # Ok::<_, mx_olm_orchestrator::ManifestError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ListedUser {
    /// The public master key, in unpadded base64. The devices that its identity has signed are good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key: Option<String>,
    /// Devices and their fingerprints, their Ed25519 keys in unpadded base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<OwnedDeviceId, String>,
}

/// A manifest that cannot be used, or that differs from what there is.
///
/// ```
/// use mx_olm_orchestrator::{ManifestError, TrustManifest};
///
/// match TrustManifest::parse(r#"{"version": 1, "usres": {}}"#) {
///     Err(error @ ManifestError::Invalid { .. }) => assert_eq!(error.code(), "trust_manifest_invalid", "{error}"),
///     other => unreachable!("{other:?}"),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is no manifest.
    #[error("the trust manifest cannot be used: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Its file cannot be read. Nothing is sent or taken until it can.
    #[error("the trust manifest {} cannot be read: mend the file, or take it out of use", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What there is differs from it. Nothing was sent.
    #[error(
        "{} difference(s) from the trust manifest, nothing was sent: {}; remove what should not be there, or change the \
         manifest", differences.len(), listed(differences)
    )]
    Drift {
        /// Each difference.
        differences: Vec<Drift>,
    },
}

impl ManifestError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "trust_manifest_invalid",
            Self::Unreadable { .. } => "trust_manifest_unreadable",
            Self::Drift { .. } => "trust_manifest_drift",
        }
    }
}

/// One difference between a manifest and what there is.
///
/// ```no_run
/// # use mx_olm_orchestrator::{Drift, Orchestrator, TrustManifest};
/// # async fn example(device: Orchestrator, manifest: TrustManifest) -> Result<(), mx_olm_orchestrator::Error> {
/// for difference in device.check_trust_manifest(&manifest).await? {
///     match difference {
///         Drift::DeviceNotListed { user_id, device_id, .. } => println!("{user_id} has a new device {device_id}"),
///         other => println!("{other}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "drift", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Drift {
    /// The user is not listed.
    UserNotListed {
        /// Who.
        user_id: OwnedUserId,
    },
    /// The user has another master key, or none.
    MasterKey {
        /// Who.
        user_id: OwnedUserId,
        /// The key that is listed.
        listed: String,
        /// The key that the user has.
        found: Option<String>,
    },
    /// The user has no such device.
    DeviceMissing {
        /// Who.
        user_id: OwnedUserId,
        /// The device that is listed.
        device_id: OwnedDeviceId,
    },
    /// The device has another fingerprint.
    Fingerprint {
        /// Who.
        user_id: OwnedUserId,
        /// The device.
        device_id: OwnedDeviceId,
        /// The fingerprint that is listed.
        listed: String,
        /// The fingerprint that the device has.
        found: String,
    },
    /// The device is neither listed nor signed by the identity that is.
    DeviceNotListed {
        /// Who.
        user_id: OwnedUserId,
        /// The device.
        device_id: OwnedDeviceId,
        /// The fingerprint that the device has.
        found: String,
    },
}

impl Drift {
    /// Of whom it is.
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        match self {
            Self::UserNotListed { user_id }
            | Self::MasterKey { user_id, .. }
            | Self::DeviceMissing { user_id, .. }
            | Self::Fingerprint { user_id, .. }
            | Self::DeviceNotListed { user_id, .. } => user_id,
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserNotListed { user_id } => write!(f, "{user_id} is not listed"),
            Self::MasterKey { user_id, listed, found } => match found {
                Some(found) => write!(f, "{user_id} has the master key {found}, and {listed} is listed"),
                None => write!(f, "{user_id} has no master key, and {listed} is listed"),
            },
            Self::DeviceMissing { user_id, device_id } => {
                write!(f, "{user_id} has no device {device_id}, which is listed")
            }
            Self::Fingerprint {
                user_id,
                device_id,
                listed,
                found,
            } => write!(
                f,
                "device {device_id} of {user_id} has the fingerprint {found}, and {listed} is listed"
            ),
            Self::DeviceNotListed {
                user_id,
                device_id,
                found,
            } => write!(
                f,
                "device {device_id} of {user_id} with the fingerprint {found} is not listed"
            ),
        }
    }
}

/// At most five, so that an error stays one line.
fn listed(differences: &[Drift]) -> String {
    let mut words: Vec<String> = differences.iter().take(5).map(ToString::to_string).collect();
    if differences.len() > words.len() {
        words.push("…".to_owned());
    }
    words.join("; ")
}

/// What is known of a user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) master_key: Option<String>,
    /// Fingerprints, and whether the user's identity has signed the device.
    pub(crate) devices: BTreeMap<OwnedDeviceId, (String, bool)>,
}

impl TrustManifest {
    /// An empty manifest.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            version: 1,
            unlisted: Unlisted::Refuse,
            users: BTreeMap::new(),
        }
    }

    /// Read a manifest.
    ///
    /// ```
    /// use mx_olm_orchestrator::TrustManifest;
    ///
    /// let key = "uY7K0dLV0pwK6nrDkNHWKMtCQSyLVb1aXzTpZxB5d9I";
    /// let json = serde_json::json!({"version": 1, "users": {"@bob:example.org": {"master_key": key}}});
    /// assert_eq!(TrustManifest::parse(&json.to_string())?.users.len(), 1);
    /// let nobody = r#"{"version": 1, "users": {"@bob:example.org": {}}}"#;
    /// assert_eq!(TrustManifest::parse(nobody).unwrap_err().code(), "trust_manifest_invalid");
    /// # Ok::<_, mx_olm_orchestrator::ManifestError>(())
    /// ```
    ///
    /// # Errors
    /// [`ManifestError::Invalid`]: it is not JSON of this form, of another version, or lists a user without any key.
    pub fn parse(json: &str) -> Result<Self, ManifestError> {
        let invalid = |reason: String| ManifestError::Invalid { reason };
        let manifest: Self = serde_json::from_str(json).map_err(|error| invalid(error.to_string()))?;
        if manifest.version != 1 {
            return Err(invalid(format!(
                "its version is {}, and 1 is known here",
                manifest.version
            )));
        }
        for (user, listed) in &manifest.users {
            let keys = listed.devices.values().chain(&listed.master_key);
            for key in keys {
                if !is_key(key) {
                    return Err(invalid(format!("{key:?} of {user} is no key in unpadded base64")));
                }
            }
            if listed.master_key.is_none() && listed.devices.is_empty() {
                return Err(invalid(format!(
                    "{user} is listed without a key: nobody could be that user"
                )));
            }
        }
        Ok(manifest)
    }

    /// How what is found of a user differs from what is listed.
    pub(crate) fn differences(&self, user: &UserId, is_own: bool, found: &Found) -> Vec<Drift> {
        let user_id = user.to_owned();
        let Some(listed) = self.users.get(user) else {
            let refused = self.unlisted == Unlisted::Refuse && !is_own;
            return if refused {
                vec![Drift::UserNotListed { user_id }]
            } else {
                Vec::new()
            };
        };
        let mut differences = Vec::new();
        if let Some(key) = listed
            .master_key
            .as_ref()
            .filter(|key| found.master_key.as_ref() != Some(key))
        {
            differences.push(Drift::MasterKey {
                user_id: user_id.clone(),
                listed: key.clone(),
                found: found.master_key.clone(),
            });
        }
        for (device_id, fingerprint) in &listed.devices {
            let (user_id, device_id) = (user_id.clone(), device_id.clone());
            match found.devices.get(&device_id) {
                None => differences.push(Drift::DeviceMissing { user_id, device_id }),
                Some((has, _)) if has != fingerprint => differences.push(Drift::Fingerprint {
                    user_id,
                    device_id,
                    listed: fingerprint.clone(),
                    found: has.clone(),
                }),
                Some(_) => {}
            }
        }
        let vouched = listed.master_key.is_some() && found.master_key == listed.master_key;
        for (device_id, (fingerprint, signed)) in &found.devices {
            let is_good = listed.devices.contains_key(device_id) || (vouched && *signed);
            if !is_good {
                differences.push(Drift::DeviceNotListed {
                    user_id: user_id.clone(),
                    device_id: device_id.clone(),
                    found: fingerprint.clone(),
                });
            }
        }
        differences
    }

    /// Whether a device is one of those that the manifest means. `None`: it says nothing about the user.
    pub(crate) fn means(&self, user: &UserId, device: &ruma::DeviceId, found: &Found) -> Option<bool> {
        let listed = self.users.get(user)?;
        let (fingerprint, signed) = found.devices.get(device)?;
        let vouched = listed.master_key.is_some() && found.master_key == listed.master_key;
        Some(
            listed
                .devices
                .get(device)
                .map_or(vouched && *signed, |listed| listed == fingerprint),
        )
    }
}

fn is_key(text: &str) -> bool {
    let bytes = matrix_sdk_crypto::vodozemac::base64_decode(text);
    !text.ends_with('=') && bytes.is_ok_and(|bytes| bytes.len() == 32)
}

impl Default for TrustManifest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
