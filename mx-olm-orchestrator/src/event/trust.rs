//! What an app is told about identities, the key backup and the trust manifest.

use ruma::OwnedUserId;
use serde::{Deserialize, Serialize};

use crate::{BackupHalt, Drift, IdentityStanding};

/// A user whose cross-signing identity was replaced.
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
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct OwnIdentity {
    /// How it stands.
    pub standing: IdentityStanding,
    /// What to do, in one sentence.
    pub advice: String,
}

/// The key backup, when it is not used any more.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BackupStopped {
    /// The version that was used.
    pub version: String,
    /// Why it is not.
    pub because: BackupHalt,
    /// What to do, in one sentence.
    pub advice: String,
}

/// Differences between the trust manifest and what there is.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TrustDrift {
    /// Each difference.
    pub differences: Vec<Drift>,
}
