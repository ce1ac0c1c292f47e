//! What a decrypted event is worth: how far its device is known now, and whether that is enough.
//!
//! # Why
//! The engine judges by the room key, which remembers its owner as it was when the key came: a device that was deleted
//! since, and what our own user decided about a device, are not in that.
//!
//! It takes the device that a room key names from keys that came with it, signed by themselves, and does not hold them
//! against the device that it knows by that name. So here a device is its key, and not its name.

use std::sync::Arc;

use matrix_sdk_common::deserialized_responses::{AlgorithmInfo, EncryptionInfo};
use matrix_sdk_crypto::{OlmMachine, vodozemac::Curve25519PublicKey};
use mx_crypto_store::Unit;
use ruma::UserId;
use serde::{Deserialize, Serialize};

use super::decrypt;
use crate::{Result, Trust, TrustManifest, devices::was_deleted, trust_manifest};

/// Whose messages are given to the app. What is not believed yet waits, and is reported at the deadline; it is given when
/// its sender is verified meanwhile. It is looked at when a message comes, and once more when it is given: another process
/// may have taken it, which accepts more.
///
/// ```
/// use mx_olm_orchestrator::{Accept, Trust};
///
/// assert!(Accept::Everybody.takes(Trust::Unsigned) && Accept::Everybody.takes_plaintext());
/// assert!(Accept::CrossSigned.takes(Trust::Verified) && !Accept::CrossSigned.takes(Trust::Unsigned));
/// assert!(!Accept::Verified.takes(Trust::CrossSigned));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Accept {
    /// Everybody's; with each message it is said how far its device is known.
    #[default]
    Everybody,
    /// Those of devices that their owner's identity has signed, or that are verified; no plaintext where messages are
    /// encrypted.
    CrossSigned,
    /// Those of verified devices only: of users whom we verified, or devices whose fingerprint we were told; no plaintext
    /// where messages are encrypted.
    Verified,
}

impl Accept {
    /// Whether a message of such a device is given to the app.
    #[must_use]
    pub const fn takes(self, trust: Trust) -> bool {
        match self {
            Self::Everybody => true,
            Self::CrossSigned => matches!(trust, Trust::CrossSigned | Trust::Verified),
            Self::Verified => matches!(trust, Trust::Verified),
        }
    }

    /// Whether plaintext is given to the app where messages are encrypted.
    #[must_use]
    pub const fn takes_plaintext(self) -> bool {
        matches!(self, Self::Everybody)
    }
}

/// How far the device is known that encrypted an event of `sender`.
pub(super) async fn standing(
    machine: &OlmMachine,
    unit: &Unit,
    manifest: &Option<Arc<TrustManifest>>,
    sender: &UserId,
    info: &EncryptionInfo,
) -> Result<Trust> {
    let judged = decrypt::trust(&info.verification_state);
    if matches!(judged, Trust::Imported | Trust::IdentityChanged | Trust::Unknown) {
        return Ok(judged);
    }
    let Some(id) = &info.sender_device else {
        return Ok(judged);
    };
    let Some(device) = machine.get_device(sender, id, None).await? else {
        // One that is not known yet has proven itself with the key that it gave.
        let deleted = was_deleted(unit, sender, id).await?;
        return Ok(if deleted { Trust::Deleted } else { judged });
    };
    if is_own(machine, sender, info) {
        return Ok(judged);
    }
    if device.is_blacklisted() {
        return Ok(Trust::Blocked);
    }
    if device.curve25519_key().is_none_or(|key| !came_from(info, key)) {
        // Another device under this one's name.
        return Ok(trust_manifest::standing_of_nobody(manifest, sender, judged));
    }
    let judged = if device.is_locally_trusted() {
        Trust::Verified
    } else {
        judged
    };
    trust_manifest::standing(machine, manifest, sender, id, judged).await
}

/// Whether this very device encrypted it.
pub(super) fn is_own(machine: &OlmMachine, sender: &UserId, info: &EncryptionInfo) -> bool {
    let device = info.sender_device.as_deref();
    sender == machine.user_id()
        && device == Some(machine.device_id())
        && came_from(info, machine.identity_keys().curve25519)
}

/// Whether the room key came from the device with this key.
fn came_from(info: &EncryptionInfo, key: Curve25519PublicKey) -> bool {
    match &info.algorithm_info {
        AlgorithmInfo::MegolmV1AesSha2 { curve25519_key, .. } => *curve25519_key == key.to_base64(),
        AlgorithmInfo::OlmV1Curve25519AesSha2 { .. } => false,
    }
}
