//! Every kind of row in one table: where a record lives, under which name, and whether its going missing would be seen.
//!
//! A row is `table ‖ name of the group ‖ name in the group`, or `table ‖ name of the group ‖ position` for sequences:
//! one group is one prefix, and a sequence is read in its order.

use crate::seal::Sealer;

/// What kind of record a row holds. A number is never given to another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    Header = 0x00,
    Account = 0x01,
    OlmSession = 0x02,
    InboundGroupSession = 0x03,
    InboundGroupSessionBySender = 0x04,
    OutboundGroupSession = 0x05,
    OutboundGroupSessionShares = 0x06,
    PrivateIdentity = 0x07,
    TrackedUser = 0x08,
    Device = 0x09,
    Identity = 0x0a,
    OlmMessageHash = 0x0b,
    SecretRequest = 0x0c,
    SecretRequestByInfo = 0x0d,
    Withheld = 0x0e,
    CustomValue = 0x0f,
    Lease = 0x10,
    Secret = 0x11,
    BackupKeys = 0x12,
    DehydratedDeviceKey = 0x13,
    NextBatch = 0x14,
    RoomSettings = 0x15,
    RoomKeyBundle = 0x16,
    RoomKeysDownloaded = 0x17,
    PendingKeyBundle = 0x18,
    InboundGroupSessionBySenderData = 0x19,
    OutboundGroupSessionProgress = 0x1a,
    /// Records of callers.
    Record = 0x40,
    /// The next position of each sequence.
    Position = 0x41,
    /// Which version of each guarded row is the newest.
    Manifest = 0x42,
    /// Records of callers' guarded families.
    GuardedRecord = 0x43,
}

impl Table {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 31] = [
        Self::Header,
        Self::Account,
        Self::OlmSession,
        Self::InboundGroupSession,
        Self::InboundGroupSessionBySender,
        Self::OutboundGroupSession,
        Self::OutboundGroupSessionShares,
        Self::PrivateIdentity,
        Self::TrackedUser,
        Self::Device,
        Self::Identity,
        Self::OlmMessageHash,
        Self::SecretRequest,
        Self::SecretRequestByInfo,
        Self::Withheld,
        Self::CustomValue,
        Self::Lease,
        Self::Secret,
        Self::BackupKeys,
        Self::DehydratedDeviceKey,
        Self::NextBatch,
        Self::RoomSettings,
        Self::RoomKeyBundle,
        Self::RoomKeysDownloaded,
        Self::PendingKeyBundle,
        Self::InboundGroupSessionBySenderData,
        Self::OutboundGroupSessionProgress,
        Self::Record,
        Self::Position,
        Self::Manifest,
        Self::GuardedRecord,
    ];

    /// The table that a row is in.
    pub(crate) fn of(row: &[u8]) -> Option<Self> {
        let number = *row.first()?;
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }

    /// Whether the manifest knows the newest version of each row: one that is missing or was set back is then seen.
    ///
    /// These are the rows whose loss would reuse a ratchet, a key or a token, or forget that a room is encrypted. Of
    /// the others a loss is seen when it matters (a room key is missing), or mends itself (a device is asked for again).
    pub(crate) const fn is_guarded(self) -> bool {
        matches!(
            self,
            Self::Account
                | Self::OlmSession
                | Self::OutboundGroupSession
                | Self::OutboundGroupSessionShares
                | Self::OutboundGroupSessionProgress
                | Self::PrivateIdentity
                | Self::BackupKeys
                | Self::NextBatch
                | Self::RoomSettings
                | Self::Position
                | Self::GuardedRecord
        )
    }

    /// Whether its rows come and go with messages, and say nothing about whom is written to or how. A table that is not
    /// named here counts as one that does: a new one can be forgotten here, and nothing worse comes of it than work.
    pub(crate) const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::Account
                | Self::OlmSession
                | Self::InboundGroupSession
                | Self::InboundGroupSessionBySender
                | Self::InboundGroupSessionBySenderData
                | Self::OutboundGroupSession
                | Self::OutboundGroupSessionShares
                | Self::OutboundGroupSessionProgress
                | Self::OlmMessageHash
                | Self::SecretRequest
                | Self::SecretRequestByInfo
                | Self::Withheld
                | Self::Lease
                | Self::NextBatch
                | Self::Record
                | Self::GuardedRecord
                | Self::Position
                | Self::Manifest
        )
    }

    /// Which byte of a row spreads a table's rows over the manifest: of the group's name where rows are read by group,
    /// of the row's own name where all of a table's rows are in one group.
    pub(crate) const fn spread(self) -> usize {
        match self {
            Self::OlmSession | Self::Position => 1,
            _ => 17,
        }
    }

    /// What people call it, in plain words with underscores.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Account => "account",
            Self::OlmSession => "olm_sessions",
            Self::InboundGroupSession => "inbound_group_sessions",
            Self::InboundGroupSessionBySender => "inbound_group_sessions_by_sender",
            Self::OutboundGroupSession => "outbound_group_sessions",
            Self::OutboundGroupSessionShares => "outbound_group_session_shares",
            Self::PrivateIdentity => "private_identity",
            Self::TrackedUser => "tracked_users",
            Self::Device => "devices",
            Self::Identity => "identities",
            Self::OlmMessageHash => "olm_message_hashes",
            Self::SecretRequest => "secret_requests",
            Self::SecretRequestByInfo => "secret_requests_by_info",
            Self::Withheld => "withheld_sessions",
            Self::CustomValue => "custom_values",
            Self::Lease => "leases",
            Self::Secret => "secrets",
            Self::BackupKeys => "backup_keys",
            Self::DehydratedDeviceKey => "dehydrated_device_key",
            Self::NextBatch => "next_batch",
            Self::RoomSettings => "room_settings",
            Self::RoomKeyBundle => "room_key_bundles",
            Self::RoomKeysDownloaded => "room_keys_downloaded",
            Self::PendingKeyBundle => "pending_key_bundles",
            Self::InboundGroupSessionBySenderData => "inbound_group_sessions_by_sender_data",
            Self::OutboundGroupSessionProgress => "outbound_group_session_progress",
            Self::Record => "records",
            Self::Position => "positions",
            Self::Manifest => "manifest",
            Self::GuardedRecord => "guarded_records",
        }
    }
}

pub(crate) type Row = Vec<u8>;

/// The row of the header: the only one whose name and value are not sealed.
pub(crate) const HEADER_ROW: &[u8] = &[Table::Header as u8];

/// All rows of a table.
#[cfg(feature = "engine")]
pub(crate) fn table(table: Table) -> Row {
    vec![table as u8]
}

/// All rows of a group.
pub(crate) fn group(sealer: &Sealer, table: Table, group: &[&str]) -> Row {
    let mut row = vec![table as u8];
    row.extend_from_slice(&sealer.name(table, group));
    row
}

/// A row with a name in a group.
pub(crate) fn named(sealer: &Sealer, table: Table, parts: &[&str], name: &str) -> Row {
    let mut row = group(sealer, table, parts);
    row.extend_from_slice(&sealer.name(table, &[name]));
    row
}

/// A row with a position in a group.
pub(crate) fn positioned(sealer: &Sealer, table: Table, parts: &[&str], position: u64) -> Row {
    let mut row = group(sealer, table, parts);
    row.extend_from_slice(&position.to_be_bytes());
    row
}
