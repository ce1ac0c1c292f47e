//! What a checkup can find: each with a name that stays the same, how bad it is, what it means, and what mends it.

use serde::{Serialize, Serializer};

/// How bad something is.
///
/// ```
/// use mx_e2ee::Severity;
///
/// assert!(Severity::Error > Severity::Warning && Severity::Warning > Severity::Note);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Good to know, and nothing has to be done.
    Note,
    /// Something works worse than it could, or will stop to work.
    Warning,
    /// Messages are not sent, or not read, or somebody may be lying.
    Error,
}

impl Severity {
    /// The severity in a word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[doc = include_str!("../../DOCTOR.md")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingCode {
    /// There is no login.
    NotLoggedIn,
    /// The device was moved to another place.
    DeviceMoved,
    /// The file of the login is damaged, or cannot be read.
    LoginUnreadable,
    /// Others can read the profile.
    ProfileReadable,
    /// The disk is nearly full.
    DiskSpace,
    /// Another process uses the store.
    StoreInUse,
    /// The store does not open.
    StoreUnopened,
    /// Records of the store are damaged.
    StoreDamaged,
    /// The store was set back, or runs twice.
    StoreSetBack,
    /// No answer from the homeserver.
    ServerUnreachable,
    /// The homeserver speaks no version that is known here.
    ServerVersions,
    /// The clocks differ.
    ClockSkew,
    /// The homeserver does not accept the token.
    LoginRefused,
    /// The token belongs to somebody else.
    LoginOfAnother,
    /// Others do not see this device.
    DeviceNotPublished,
    /// Others see this device with other keys.
    DeviceKeysMismatch,
    /// Others refuse the keys of this device.
    DeviceUnsigned,
    /// Others do not see that this device reads encrypted rooms.
    DeviceAlgorithms,
    /// The homeserver has ended this device.
    DeviceDeleted,
    /// Nobody can begin a session with this device.
    NoKeysToClaim,
    /// Few one-time keys are left.
    FewOneTimeKeys,
    /// The fallback key was used, or there is none.
    NoFallbackKey,
    /// The homeserver has one-time keys that are not ours.
    ForeignOneTimeKeys,
    /// The homeserver holds another one-time key under the name of ours.
    OneTimeKeyConflict,
    /// The account has no identity.
    NoIdentity,
    /// This device does not trust the account's identity.
    IdentityUnverified,
    /// The account's identity was replaced.
    IdentityReplaced,
    /// The account's identity has not signed this device.
    DeviceNotSigned,
    /// The identity's private keys are not here.
    IdentityIncomplete,
    /// The identity's secrets are kept nowhere else.
    NoSecretStorage,
    /// The secret storage lacks secrets.
    SecretsMissing,
    /// The homeserver has lost the dehydrated device.
    DehydratedDeviceMissing,
    /// There is no key backup.
    NoBackup,
    /// The key backup is not used.
    BackupOff,
    /// The key of the backup is not here.
    BackupKeyMissing,
    /// Nobody whom we trust has signed the backup.
    BackupUntrusted,
    /// The backup that was used is gone.
    BackupChanged,
    /// The key of the backup is in no secret storage.
    BackupKeyNotKept,
    /// Room keys are not in the backup yet.
    BackupBehind,
    /// Events wait for their keys.
    UndecryptableEvents,
    /// A send into a room would be refused.
    RoomRefuses,
    /// Somebody cannot read the next message of a room.
    RoomReadersMissing,
    /// The homeserver shows a room other than it was.
    RoomSuspicious,
    /// Who may read in a room cannot be said.
    RoomUnknown,
    /// The trust manifest cannot be read.
    TrustManifestUnreadable,
    /// Somebody differs from the trust manifest.
    TrustManifestDrift,
    /// Something could not be looked at.
    CheckFailed,
}

/// A name, how bad, what it means, and what mends it.
pub(super) type Entry = (&'static str, Severity, &'static str, &'static str);

impl FindingCode {
    /// All of them.
    ///
    /// ```
    /// use mx_e2ee::{FindingCode, Severity};
    ///
    /// // What a monitor could ever be told, the worst first.
    /// let mut codes = FindingCode::ALL;
    /// codes.sort_by_key(|code| std::cmp::Reverse(code.severity()));
    /// for code in codes {
    ///     println!("{} [{}] {} {}", code.severity().name(), code.code(), code.meaning(), code.mend());
    /// }
    /// # assert_eq!(codes[0].severity(), Severity::Error);
    /// ```
    pub const ALL: [Self; 47] = [
        Self::NotLoggedIn,
        Self::DeviceMoved,
        Self::LoginUnreadable,
        Self::ProfileReadable,
        Self::DiskSpace,
        Self::StoreInUse,
        Self::StoreUnopened,
        Self::StoreDamaged,
        Self::StoreSetBack,
        Self::ServerUnreachable,
        Self::ServerVersions,
        Self::ClockSkew,
        Self::LoginRefused,
        Self::LoginOfAnother,
        Self::DeviceNotPublished,
        Self::DeviceKeysMismatch,
        Self::DeviceUnsigned,
        Self::DeviceAlgorithms,
        Self::DeviceDeleted,
        Self::NoKeysToClaim,
        Self::FewOneTimeKeys,
        Self::NoFallbackKey,
        Self::ForeignOneTimeKeys,
        Self::OneTimeKeyConflict,
        Self::NoIdentity,
        Self::IdentityUnverified,
        Self::IdentityReplaced,
        Self::DeviceNotSigned,
        Self::IdentityIncomplete,
        Self::NoSecretStorage,
        Self::SecretsMissing,
        Self::DehydratedDeviceMissing,
        Self::NoBackup,
        Self::BackupOff,
        Self::BackupKeyMissing,
        Self::BackupUntrusted,
        Self::BackupChanged,
        Self::BackupKeyNotKept,
        Self::BackupBehind,
        Self::UndecryptableEvents,
        Self::RoomRefuses,
        Self::RoomReadersMissing,
        Self::RoomSuspicious,
        Self::RoomUnknown,
        Self::TrustManifestUnreadable,
        Self::TrustManifestDrift,
        Self::CheckFailed,
    ];

    /// A stable name, for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.entry().0
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        self.entry().1
    }

    /// What it means, in one sentence.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.entry().2
    }

    /// What mends it: a command, or what a person does.
    #[must_use]
    pub const fn mend(self) -> &'static str {
        self.entry().3
    }

    /// It is safe to mend without asking anybody: nothing is lost and nobody is trusted by it.
    ///
    /// ```
    /// use mx_e2ee::FindingCode;
    ///
    /// // What `Checkup::fix` mends. A decision of a person is none of it.
    /// let fixable: Vec<&str> = FindingCode::ALL.into_iter().filter(|code| code.can_be_fixed()).map(FindingCode::code).collect();
    /// assert!(fixable.contains(&"backup_behind") && !fixable.contains(&"identity_replaced"));
    /// ```
    #[must_use]
    pub const fn can_be_fixed(self) -> bool {
        matches!(
            self,
            Self::ProfileReadable
                | Self::DeviceNotPublished
                | Self::NoKeysToClaim
                | Self::FewOneTimeKeys
                | Self::NoFallbackKey
                | Self::BackupBehind
                | Self::UndecryptableEvents
        )
    }

    /// The finding of this name.
    ///
    /// ```
    /// use mx_e2ee::{FindingCode, Severity};
    ///
    /// assert_eq!(FindingCode::named("store_in_use"), Some(FindingCode::StoreInUse));
    /// assert_eq!(FindingCode::StoreInUse.severity(), Severity::Note);
    /// assert!(FindingCode::BackupBehind.can_be_fixed());
    /// ```
    #[must_use]
    pub fn named(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    const fn entry(self) -> Entry {
        match self {
            Self::NotLoggedIn
            | Self::DeviceMoved
            | Self::LoginUnreadable
            | Self::ProfileReadable
            | Self::DiskSpace
            | Self::StoreInUse
            | Self::StoreUnopened
            | Self::StoreDamaged
            | Self::StoreSetBack => self.of_the_profile(),
            Self::ServerUnreachable
            | Self::ServerVersions
            | Self::ClockSkew
            | Self::LoginRefused
            | Self::LoginOfAnother => self.of_the_server(),
            Self::RoomRefuses
            | Self::RoomReadersMissing
            | Self::RoomSuspicious
            | Self::RoomUnknown
            | Self::UndecryptableEvents
            | Self::TrustManifestUnreadable
            | Self::TrustManifestDrift
            | Self::CheckFailed => self.of_messages(),
            Self::NoIdentity
            | Self::IdentityUnverified
            | Self::IdentityReplaced
            | Self::DeviceNotSigned
            | Self::IdentityIncomplete
            | Self::NoSecretStorage
            | Self::SecretsMissing
            | Self::DehydratedDeviceMissing => self.of_the_identity(),
            Self::NoBackup
            | Self::BackupOff
            | Self::BackupKeyMissing
            | Self::BackupUntrusted
            | Self::BackupChanged
            | Self::BackupKeyNotKept
            | Self::BackupBehind => self.of_the_backup(),
            _ => self.of_the_device(),
        }
    }
}

impl Serialize for FindingCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_finding_has_a_name_of_its_own_and_words() {
        let names: BTreeSet<&str> = FindingCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(names.len(), FindingCode::ALL.len());
        for code in FindingCode::ALL {
            assert_eq!(FindingCode::named(code.code()), Some(code));
            assert!(!code.meaning().is_empty() && !code.mend().is_empty());
            assert!(!code.meaning().ends_with('.'), "{}", code.code());
            assert_eq!(serde_json::to_value(code).unwrap(), code.code());
        }
        assert_eq!(FindingCode::named("nonsense"), None);
    }

    /// The table for people is this one.
    #[test]
    fn the_readme_lists_every_finding() {
        let readme = include_str!("../../DOCTOR.md");
        for code in FindingCode::ALL {
            let fixed = if code.can_be_fixed() { "yes" } else { "" };
            let row = format!(
                "| `{}` | {} | {} | {} | {fixed} |",
                code.code(),
                code.severity().name(),
                code.meaning(),
                code.mend(),
            );
            assert!(readme.contains(&row), "missing in DOCTOR.md:\n{row}");
        }
        let rows = readme.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, FindingCode::ALL.len());
    }
}
