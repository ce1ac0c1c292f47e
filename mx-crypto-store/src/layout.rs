//! Every kind of row in one table: where a record lives, and under which name.
//!
//! A row is `table ‖ name of the group ‖ name in the group`, or `table ‖ name of the group ‖ position` for sequences:
//! one group is one prefix, and a sequence is read in its order.

use crate::seal::Sealer;

/// What kind of record a row holds. A number is never given to another kind.
#[cfg_attr(
    not(feature = "engine"),
    expect(dead_code, reason = "the engine's tables keep their numbers without it")
)]
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
    /// Records of callers.
    Record = 0x40,
    /// The next position of each sequence.
    Position = 0x41,
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
    row.extend_from_slice(&sealer.name(group));
    row
}

/// A row with a name in a group.
pub(crate) fn named(sealer: &Sealer, table: Table, parts: &[&str], name: &str) -> Row {
    let mut row = group(sealer, table, parts);
    row.extend_from_slice(&sealer.name(&[name]));
    row
}

/// A row with a position in a group.
pub(crate) fn positioned(sealer: &Sealer, table: Table, parts: &[&str], position: u64) -> Row {
    let mut row = group(sealer, table, parts);
    row.extend_from_slice(&position.to_be_bytes());
    row
}
