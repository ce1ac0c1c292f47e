//! Stable names of the errors, for programs.

use super::Error;

impl Error {
    /// A stable name of this error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Request(error) => error.code(),
            Self::KeyFile(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::SecretStorage(error) => error.code(),
            Self::Backup(error) => error.code(),
            Self::Dehydration(error) => error.code(),
            Self::History(error) => error.code(),
            Self::Manifest(error) => error.code(),
            Self::Kept { .. } => "recovery_key_not_kept",
            Self::Verification(error) => error.code(),
            Self::RoomNotEncrypted { .. } => "room_not_encrypted",
            Self::NotInRoom { .. } => "not_in_room",
            Self::RoomIsEncrypted { .. } => "room_is_encrypted",
            Self::UnsupportedAlgorithm { .. } => "unsupported_algorithm",
            Self::RoomTombstoned { .. } => "room_tombstoned",
            Self::MembersIncomplete { .. } => "members_incomplete",
            Self::RecipientNotAllowed { .. } => "recipient_not_allowed",
            Self::FingerprintMismatch { .. } => "fingerprint_mismatch",
            Self::RecipientsUnknown { .. } => "recipients_unknown",
            Self::NoUsableRecipients { .. } => "no_usable_recipients",
            Self::ClaimFailed { .. } => "claim_failed",
            Self::KeyShareIncomplete { .. } => "key_share_incomplete",
            Self::IdentityChanged { .. } => "identity_changed",
            Self::OwnDeviceDeleted { .. } => "device_deleted",
            Self::DevicesUnknown { .. } => "devices_unknown",
            Self::DeviceMoved { .. } => "device_moved",
            Self::UnsentEvents { .. } => "unsent_events",
            Self::OneTimeKeyConflict { .. } => "one_time_key_conflict",
            Self::StoreRolledBack { .. } => "store_set_back",
            Self::StoreOfAnotherDevice { .. } => "store_of_another_device",
            Self::DeviceKeysMismatch { .. } => "device_keys_mismatch",
            Self::TooLarge { .. } => "too_large",
            Self::BadContent { .. } => "bad_content",
            Self::SendPending { .. } => "send_pending",
            Self::EarlierSendPending { .. } => "earlier_send_pending",
            Self::MalformedSync { .. } => "malformed_sync",
            Self::Engine { .. } => "engine",
            Self::EngineStopped => "engine_stopped",
        }
    }

    /// Syncing on makes no sense: the device is not ours any more, or nothing can be kept.
    pub(crate) const fn ends_receiving(&self) -> bool {
        matches!(
            self,
            Self::DeviceKeysMismatch { .. } | Self::OwnDeviceDeleted { .. } | Self::Store(_)
        )
    }
}
