//! What a decrypted event is worth: how far its device is known now, and whether that is enough.
//!
//! # Why
//! The engine judges by the room key, which remembers its owner as it was when the key came: a device that was deleted
//! since, and what our own user decided about a device, are not in that.

use std::sync::Arc;

use matrix_sdk_crypto::OlmMachine;
use mx_crypto_store::Unit;
use ruma::UserId;
use serde::{Deserialize, Serialize};

use super::decrypt::{self, Opened};
use crate::{Result, Trust, TrustManifest, devices::was_deleted, trust_manifest};

/// Whose messages are given to the app. What is not believed yet waits, and is reported at the deadline; it is given when
/// its sender is verified meanwhile.
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

/// How far the device is known that encrypted an event.
pub(super) async fn standing(
    machine: &OlmMachine,
    unit: &Unit,
    manifest: &Option<Arc<TrustManifest>>,
    sender: &UserId,
    opened: &Opened,
) -> Result<Trust> {
    let info = &opened.decrypted.encryption_info;
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
    if sender == machine.user_id() && *id == machine.device_id() {
        return Ok(judged);
    }
    if device.is_blacklisted() {
        return Ok(Trust::Blocked);
    }
    let judged = if device.is_locally_trusted() {
        Trust::Verified
    } else {
        judged
    };
    trust_manifest::standing(machine, manifest, sender, id, judged).await
}
