//! What each finding means and what mends it, in words.

use super::code::{Entry, FindingCode, Severity};

impl FindingCode {
    pub(super) const fn of_the_profile(self) -> Entry {
        match self {
            Self::NotLoggedIn => (
                "not_logged_in",
                Severity::Error,
                "there is no login in this profile",
                "mx login",
            ),
            Self::DeviceMoved => (
                "device_moved",
                Severity::Error,
                "the device of this profile was moved away, or was on its way: it does not run here, since two copies lose messages of both",
                "see the detail: use it where it arrived, or move it once more: mx store export, mx store copy",
            ),
            Self::LoginUnreadable => (
                "login_unreadable",
                Severity::Error,
                "the file of the login cannot be read, was changed, or is open to others",
                "mx doctor --fix where others may read it; or else put session.json back, or: mx logout --forget, and mx login",
            ),
            Self::ProfileReadable => (
                "profile_readable",
                Severity::Warning,
                "others on this machine can read or replace files of the profile: take its token as seen",
                "mx doctor --fix",
            ),
            Self::DiskSpace => (
                "disk_space",
                Severity::Warning,
                "the disk of the profile is nearly full: without space nothing is sent and nothing received",
                "make room on the disk, or: mx store compact",
            ),
            Self::StoreInUse => (
                "store_in_use",
                Severity::Note,
                "another process uses the profile: what is in its store was not looked at",
                "stop it, and look again",
            ),
            Self::StoreUnopened => (
                "store_unopened",
                Severity::Error,
                "the store does not open, and with it no message can be sent or read",
                "see the cause; where the store is damaged or gone: mx logout --forget, and mx login for a new device",
            ),
            Self::StoreDamaged => (
                "store_damaged",
                Severity::Error,
                "records of the store were changed, removed or put back: the disk fails, or somebody has been there",
                "mx logout, and mx login for a new device; room keys come back with: mx backup restore",
            ),
            _ => (
                "store_set_back",
                Severity::Error,
                "another copy of this store has sent messages: it was restored from a copy, or runs on two machines",
                "make sure that the other copy never runs again; the clean way out is mx logout, and mx login, and the other one mx store acknowledge",
            ),
        }
    }

    pub(super) const fn of_the_server(self) -> Entry {
        match self {
            Self::ServerUnreachable => (
                "server_unreachable",
                Severity::Error,
                "the homeserver does not answer, or not as one does",
                "check the network, the name, and the server's own state",
            ),
            Self::ServerVersions => (
                "server_versions",
                Severity::Error,
                "the homeserver speaks no version of the Matrix specification that is known here",
                "update the homeserver, or mx",
            ),
            Self::ClockSkew => (
                "clock_skew",
                Severity::Warning,
                "this machine's clock and the homeserver's differ: keys are renewed, and tokens end, at the wrong time",
                "set the clock of this machine, as by NTP",
            ),
            Self::LoginRefused => (
                "login_refused",
                Severity::Error,
                "the homeserver does not accept the token of this login",
                "mx login with the same user, which keeps the device where the homeserver still has it",
            ),
            _ => (
                "login_of_another",
                Severity::Error,
                "the token of this login belongs to another user or device",
                "mx logout --forget, and mx login",
            ),
        }
    }

    pub(super) const fn of_the_device(self) -> Entry {
        match self {
            Self::DeviceNotPublished => (
                "device_not_published",
                Severity::Error,
                "the homeserver does not show this device's keys: nobody can encrypt for it",
                "mx keys publish",
            ),
            Self::DeviceKeysMismatch => (
                "device_keys_mismatch",
                Severity::Error,
                "the homeserver shows this device with other keys than those here: others encrypt for somebody else",
                "mx logout, and mx login for a new device; if nobody lost a store, the homeserver may be lying",
            ),
            Self::DeviceUnsigned => (
                "device_unsigned",
                Severity::Error,
                "the homeserver shows this device's keys without its signature, or changed: others refuse them",
                "mx keys publish; if it stays so, the homeserver or a proxy changes what passes it",
            ),
            Self::DeviceAlgorithms => (
                "device_algorithms",
                Severity::Error,
                "the homeserver does not show that this device speaks Olm and Megolm: others leave it out",
                "mx keys publish; if it stays so, the homeserver or a proxy changes what passes it",
            ),
            Self::DeviceDeleted => (
                "device_deleted",
                Severity::Error,
                "the homeserver has ended this device, and its keys with it",
                "mx logout, and mx login for a new device",
            ),
            _ => self.of_its_keys(),
        }
    }

    const fn of_its_keys(self) -> Entry {
        match self {
            Self::NoKeysToClaim => (
                "no_keys_to_claim",
                Severity::Error,
                "the homeserver has neither a one-time key nor a fallback key of this device: whoever has not written to it \
                 yet cannot",
                "mx keys publish",
            ),
            Self::FewOneTimeKeys => (
                "few_one_time_keys",
                Severity::Warning,
                "few one-time keys are left on the homeserver: they are topped up with every sync",
                "mx keys publish, and keep mx listen running",
            ),
            Self::NoFallbackKey => (
                "no_fallback_key",
                Severity::Warning,
                "the homeserver has no unused fallback key: when the one-time keys run out, nobody new can write",
                "mx keys publish; a key that was used is renewed within the hour",
            ),
            Self::ForeignOneTimeKeys => (
                "foreign_one_time_keys",
                Severity::Error,
                "the homeserver has more one-time keys of this device than there are private halves here: what others begin \
                 with the others cannot be read; the store was set back, or lost and made anew",
                "mx logout, and mx login for a new device",
            ),
            _ => (
                "one_time_key_conflict",
                Severity::Error,
                "the homeserver holds another one-time key under the name of one of ours: two stores are of one device",
                "make sure that the other copy never runs again; the clean way out is mx logout, and mx login, and the other one mx store acknowledge",
            ),
        }
    }

    pub(super) const fn of_the_identity(self) -> Entry {
        match self {
            Self::NoIdentity => (
                "no_identity",
                Severity::Warning,
                "the account has no cross-signing identity, so that nobody can verify it",
                "mx identity setup",
            ),
            Self::IdentityUnverified => (
                "identity_unverified",
                Severity::Warning,
                "this device is not part of the account's identity, and others are warned of it, or give it no keys",
                "mx identity recover",
            ),
            Self::IdentityReplaced => (
                "identity_replaced",
                Severity::Error,
                "the account's identity was replaced by another device: if that was not you, somebody else is in the account",
                "mx identity recover; if it was not you: change the password, and mx identity reset",
            ),
            Self::DeviceNotSigned => (
                "device_not_signed",
                Severity::Warning,
                "this device has lost the signature of the account's identity, and others are warned of it",
                "mx identity setup",
            ),
            Self::IdentityIncomplete => (
                "identity_incomplete",
                Severity::Note,
                "this device is verified and does not hold the private keys of the identity: it can verify nobody",
                "mx identity recover",
            ),
            Self::NoSecretStorage => (
                "no_secret_storage",
                Severity::Warning,
                "the secrets of the identity are kept nowhere else: when this disk is lost, so is the identity",
                "mx identity setup",
            ),
            Self::DehydratedDeviceMissing => (
                "dehydrated_device_missing",
                Severity::Warning,
                "the homeserver has lost the dehydrated device: a device that is set up later cannot read what comes until then",
                "mx identity dehydrate",
            ),
            _ => (
                "secrets_missing",
                Severity::Warning,
                "the secret storage does not hold all secrets: with its recovery key alone not everything comes back",
                "mx identity new-recovery-key",
            ),
        }
    }

    pub(super) const fn of_the_backup(self) -> Entry {
        match self {
            Self::NoBackup => (
                "no_backup",
                Severity::Warning,
                "room keys are kept on this disk only: when it is lost, so is what was said",
                "mx backup enable",
            ),
            Self::BackupOff => (
                "backup_off",
                Severity::Warning,
                "the account has a key backup whose key is here, and this device does not use it",
                "mx backup enable",
            ),
            Self::BackupKeyMissing => (
                "backup_key_missing",
                Severity::Warning,
                "the account has a key backup whose key is not here",
                "mx identity recover",
            ),
            Self::BackupUntrusted => (
                "backup_untrusted",
                Severity::Warning,
                "the account has a key backup that nobody whom this device trusts has signed: it is not used",
                "mx identity recover, or mx backup enable --replace",
            ),
            Self::BackupChanged => (
                "backup_changed",
                Severity::Warning,
                "the key backup that was used was deleted or replaced, and room keys are not backed up any more",
                "mx identity recover, or mx backup enable --replace",
            ),
            Self::BackupKeyNotKept => (
                "backup_key_not_kept",
                Severity::Warning,
                "the key of the backup is in no secret storage: when this disk is lost, nothing opens the backup",
                "mx identity new-recovery-key",
            ),
            _ => (
                "backup_behind",
                Severity::Note,
                "room keys are not in the backup yet: syncs put them there",
                "mx doctor --fix",
            ),
        }
    }

    pub(super) const fn of_messages(self) -> Entry {
        match self {
            Self::UndecryptableEvents => (
                "undecryptable_events",
                Severity::Warning,
                "events wait for keys that have not come",
                "mx undecryptable list says why each does; mx undecryptable retry tries them again",
            ),
            Self::RoomRefuses => (
                "room_refuses",
                Severity::Error,
                "a message into this room would be refused, so that it is not sent to somebody who must not read it, or to \
                 nobody",
                "mx room show says who can read and why not",
            ),
            Self::RoomReadersMissing => (
                "room_readers_missing",
                Severity::Warning,
                "somebody in this room cannot read the next message on every device",
                "mx room show says which device and why; its owner has to open it, or log in anew on it",
            ),
            Self::RoomSuspicious => (
                "room_suspicious",
                Severity::Warning,
                "the homeserver, or somebody in this room, shows something other than it was",
                "mx room show says what; ask the people in the room by another way",
            ),
            Self::RoomUnknown => (
                "room_unknown",
                Severity::Warning,
                "who may read in this room cannot be said",
                "see the cause, and look again",
            ),
            Self::TrustManifestUnreadable => (
                "trust_manifest_unreadable",
                Severity::Error,
                "the trust manifest cannot be read: nothing is sent or received, and nothing mended, until it can",
                "see the cause; then mx trust-manifest apply with a good copy, or, to trust without one: mx trust-manifest remove",
            ),
            Self::TrustManifestDrift => (
                "trust_manifest_drift",
                Severity::Error,
                "somebody differs from the trust manifest: nothing is sent to rooms where they read",
                "mx trust-manifest check",
            ),
            _ => (
                "check_failed",
                Severity::Warning,
                "something could not be looked at, so that it is not known whether it is in order",
                "see the cause, and look again",
            ),
        }
    }
}
