//! The keys that a verification is about.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{OlmMachine, UserIdentity};
use ruma::{DeviceId, UserId};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The keys that a verification is about, as they were when it started. When one of them changes, it is cancelled.
///
/// ```
/// use mx_olm_orchestrator::VerificationKeys;
///
/// let keys = VerificationKeys {
///     device: Some("the device's key".to_owned()),
///     master: Some("the user's master key".to_owned()),
///     device_is_signed: true,
///     master_is_trusted: false,
/// };
/// assert!(keys.are_expected(&["the user's master key".to_owned()].into()));
/// assert!(!keys.are_expected(&["the device's key".to_owned()].into()), "anybody could put another identity beside it");
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct VerificationKeys {
    /// The Ed25519 key of the other device, in base64.
    pub device: Option<String>,
    /// The user's master key, in base64, where the user has a cross-signing identity.
    pub master: Option<String>,
    /// The device is signed by that identity.
    pub device_is_signed: bool,
    /// The identity is our own user's, and this device trusts it already.
    pub master_is_trusted: bool,
}

impl VerificationKeys {
    pub(super) async fn of(machine: &OlmMachine, user: &UserId, device: &DeviceId) -> Result<Self> {
        let held = machine.get_device(user, device, None).await?;
        let identity = machine.get_identity(user, None).await?;
        let master = identity.as_ref().and_then(|identity| match identity {
            UserIdentity::Own(own) => own.master_key().get_first_key(),
            UserIdentity::Other(other) => other.master_key().get_first_key(),
        });
        let is_trusted = match &identity {
            Some(UserIdentity::Own(own)) => own.is_verified(),
            _ => false,
        };
        Ok(Self {
            device: held
                .as_ref()
                .and_then(|held| held.ed25519_key())
                .map(|key| key.to_base64()),
            master: master.map(|key| key.to_base64()),
            device_is_signed: held.is_some_and(|held| held.is_cross_signed_by_owner()),
            master_is_trusted: is_trusted,
        })
    }

    /// Other keys than those, whatever else may have changed about them.
    pub(super) fn differ(&self, now: &Self) -> bool {
        (&self.device, &self.master) != (&now.device, &now.master)
    }

    /// Whether all that would count as verified is among the keys that are expected. A device is also good where the
    /// identity that signs it is; an identity never is because one of its devices is: whoever answers in the name of the
    /// device could put another identity beside it.
    #[must_use]
    pub fn are_expected(&self, expected: &BTreeSet<String>) -> bool {
        let is_expected = |key: &Option<String>| key.as_ref().is_some_and(|key| expected.contains(key));
        let master_is_good = self.master_is_trusted || is_expected(&self.master);
        let device_is_good =
            is_expected(&self.device) || (self.device.is_some() && self.device_is_signed && is_expected(&self.master));
        device_is_good && (self.master.is_none() || master_is_good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(device: Option<&str>, master: Option<&str>, signed: bool, trusted: bool) -> VerificationKeys {
        VerificationKeys {
            device: device.map(str::to_owned),
            master: master.map(str::to_owned),
            device_is_signed: signed,
            master_is_trusted: trusted,
        }
    }

    fn expected(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn a_device_without_an_identity_is_known_by_its_own_key() {
        let of = keys(Some("d"), None, false, false);
        assert!(of.are_expected(&expected(&["d"])));
        assert!(!of.are_expected(&expected(&["m", "other"])));
        assert!(!of.are_expected(&expected(&[])));
    }

    #[test]
    fn an_identity_is_never_vouched_for_by_a_device() {
        let of = keys(Some("d"), Some("m"), true, false);
        assert!(
            !of.are_expected(&expected(&["d"])),
            "the identity would be verified, too"
        );
        assert!(of.are_expected(&expected(&["m"])), "it signs the device");
        assert!(of.are_expected(&expected(&["d", "m"])));
    }

    #[test]
    fn an_identity_does_not_vouch_for_a_device_that_it_does_not_sign() {
        let of = keys(Some("d"), Some("m"), false, false);
        assert!(!of.are_expected(&expected(&["m"])));
        assert!(of.are_expected(&expected(&["d", "m"])));
    }

    #[test]
    fn our_own_identity_that_is_trusted_needs_no_word_but_the_device_does() {
        let of = keys(Some("d"), Some("m"), false, true);
        assert!(of.are_expected(&expected(&["d"])));
        assert!(!of.are_expected(&expected(&["other"])));
        let nobody = keys(None, Some("m"), true, true);
        assert!(!nobody.are_expected(&expected(&["m"])), "there is no device");
    }
}
