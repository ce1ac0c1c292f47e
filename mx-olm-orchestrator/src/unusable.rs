//! Why a device that a homeserver names cannot be given a room key: one typed reason for each.

use serde::{Deserialize, Serialize};

/// Why a device cannot be given a room key.
///
/// ```
/// use mx_olm_orchestrator::UnusableReason;
///
/// assert_eq!(UnusableReason::NoOneTimeKey.code(), "no_one_time_key");
/// assert_eq!(format!("BOBDEVICE: {}", UnusableReason::NoOneTimeKey.describe()), "BOBDEVICE: it has no one-time key left");
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "code", rename_all = "snake_case")]
#[non_exhaustive]
pub enum UnusableReason {
    /// The device did not sign its keys.
    Unsigned,
    /// The signature of its keys does not verify.
    BadSignature,
    /// The keys name another device.
    IdMismatch,
    /// The keys name another user.
    UserIdMismatch,
    /// The Ed25519 or the Curve25519 key of the device is not among its keys.
    MissingKey,
    /// A key is not 32 bytes of base64.
    MalformedKey,
    /// The object is not one of device keys.
    Malformed,
    /// It carries our own Curve25519 key: what we encrypt for it would be for ourselves.
    OwnKeyReflected,
    /// Another device of the same user has the same Curve25519 key, so that neither can be told from the other.
    SharedKey,
    /// A known device came with another Ed25519 key. The known one is kept, and the other is never used.
    KeyConflict {
        /// The Ed25519 key that is known.
        old: String,
        /// The Ed25519 key that the homeserver shows now.
        new: String,
    },
    /// It does not speak `m.olm.v1.curve25519-aes-sha2`, which carries room keys.
    NoOlmSupport,
    /// It does not speak `m.megolm.v1.aes-sha2`, which encrypts rooms.
    NoMegolmSupport,
    /// There is no one-time key left for it, and no fallback key.
    NoOneTimeKey,
    /// Its one-time key is not signed.
    OneTimeKeyUnsigned,
    /// The signature of its one-time key does not verify.
    OneTimeKeyBadSignature,
    /// Its one-time key is not a key.
    OneTimeKeyMalformed,
    /// Its identity key or one-time key is a point that contributes nothing to a secret: an attack.
    NonContributoryKey,
    /// The engine refused it and does not say why.
    Refused,
}

impl UnusableReason {
    /// A stable name of the reason, for programs: the same as in JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad_signature",
            Self::IdMismatch => "id_mismatch",
            Self::UserIdMismatch => "user_id_mismatch",
            Self::MissingKey => "missing_key",
            Self::MalformedKey => "malformed_key",
            Self::Malformed => "malformed",
            Self::OwnKeyReflected => "own_key_reflected",
            Self::SharedKey => "shared_key",
            Self::KeyConflict { .. } => "key_conflict",
            Self::NoOlmSupport => "no_olm_support",
            Self::NoMegolmSupport => "no_megolm_support",
            Self::NoOneTimeKey => "no_one_time_key",
            Self::OneTimeKeyUnsigned => "one_time_key_unsigned",
            Self::OneTimeKeyBadSignature => "one_time_key_bad_signature",
            Self::OneTimeKeyMalformed => "one_time_key_malformed",
            Self::NonContributoryKey => "non_contributory_key",
            Self::Refused => "refused",
        }
    }

    /// The reason as the end of a sentence that begins with the device.
    #[must_use]
    pub const fn describe(&self) -> &'static str {
        match self {
            Self::Unsigned => "its keys are not signed",
            Self::BadSignature => "the signature of its keys does not verify",
            Self::IdMismatch => "its keys name another device",
            Self::UserIdMismatch => "its keys name another user",
            Self::MissingKey => "one of its identity keys is missing",
            Self::MalformedKey => "one of its identity keys is malformed",
            Self::Malformed => "its keys cannot be read",
            Self::OwnKeyReflected => "it carries the identity key of this very device",
            Self::SharedKey => "another device of the same user has the same identity key",
            Self::KeyConflict { .. } => "its identity keys are not the ones that it had before",
            Self::NoOlmSupport => "it does not support Olm",
            Self::NoMegolmSupport => "it does not support Megolm",
            Self::NoOneTimeKey => "it has no one-time key left",
            Self::OneTimeKeyUnsigned => "its one-time key is not signed",
            Self::OneTimeKeyBadSignature => "the signature of its one-time key does not verify",
            Self::OneTimeKeyMalformed => "its one-time key cannot be read",
            Self::NonContributoryKey => "one of its keys is a point that gives no secret",
            Self::Refused => "the encryption engine refused its keys",
        }
    }

    /// Somebody lies, rather than something being out of order: the app is told at once.
    pub(crate) const fn is_alarming(&self) -> bool {
        matches!(self, Self::OwnKeyReflected | Self::KeyConflict { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::UnusableReason;

    #[test]
    fn the_code_is_the_one_in_json() {
        let conflict = UnusableReason::KeyConflict {
            old: "o".to_owned(),
            new: "n".to_owned(),
        };
        for reason in [
            conflict,
            UnusableReason::Unsigned,
            UnusableReason::NoOneTimeKey,
            UnusableReason::OneTimeKeyBadSignature,
            UnusableReason::NonContributoryKey,
        ] {
            let json = serde_json::to_value(&reason).unwrap();
            assert_eq!(json["code"], reason.code());
            assert_eq!(serde_json::from_value::<UnusableReason>(json).unwrap(), reason);
        }
    }
}
