//! Records that lie on the disk: every change of one is seen.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "sample/sample.rs"]
mod sample;

use std::{collections::BTreeSet, sync::Arc};

use matrix_sdk_crypto::{store::CryptoStore, types::requests::ToDeviceRequest};
use mx_crypto_store::{
    Family, KeySource, PickleStore, RecordId, StoreError, StoreKey, Verified,
    backend::{Backend, Batch, Memory, MemoryDisk},
};
use ruma::{TransactionId, room_id};

use self::sample::fill;

const GUARDED: Family = Family::guarded("guarded");

/// A row and its value, as they lie on the disk.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

async fn open(rows: &Rows) -> Result<PickleStore, StoreError> {
    let backend = Memory::new();
    let batch = rows.iter().fold(Batch::new(), |batch, (row, value)| {
        batch.put(row.clone(), value.clone())
    });
    backend.commit(batch).await.unwrap();
    PickleStore::open_existing(Arc::new(backend), key()).await
}

/// Open it and look at every record.
async fn verify(rows: &Rows) -> Result<Verified, StoreError> {
    open(rows).await?.sealed().verify().await
}

async fn is_seen(rows: &Rows) -> bool {
    match verify(rows).await {
        Ok(verified) => !verified.is_whole(),
        Err(StoreError::Corrupt { .. } | StoreError::RolledBack { .. }) => true,
        Err(other) => panic!("{other:?}"),
    }
}

/// A small store, and the same after everything that is guarded was written again.
async fn small() -> (Rows, Rows) {
    let disk = MemoryDisk::new();
    let store = PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    let record = RecordId::named(GUARDED, &[], "record");
    fill(&store).await;
    let unit = store.begin().await.unwrap();
    unit.put(&record, "before").unwrap();
    unit.commit().await.unwrap();
    let before = rows(&store, &disk).await;
    let store = PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    fill_again(&store).await;
    let unit = store.begin().await.unwrap();
    unit.put(&record, "after").unwrap();
    unit.commit().await.unwrap();
    (before, rows(&store, &disk).await)
}

/// Write what is guarded once more, as the engine would.
async fn fill_again(store: &PickleStore) {
    let room = room_id!("!golden:example.org");
    let account = store.load_account().await.unwrap();
    let outbound = store.get_outbound_group_session(room).await.unwrap().unwrap();
    outbound.mark_as_shared();
    let request = ToDeviceRequest {
        event_type: "m.room.encrypted".into(),
        txn_id: TransactionId::new(),
        messages: Default::default(),
    };
    outbound.add_request(TransactionId::new(), Arc::new(request), Default::default());
    let peer = sample::peer(store).await;
    let sessions = store.get_sessions(&peer).await.unwrap().unwrap();
    let unit = store.begin().await.unwrap();
    let pending = matrix_sdk_crypto::store::types::PendingChanges { account };
    store.save_pending_changes(pending).await.unwrap();
    let changes = matrix_sdk_crypto::store::types::Changes {
        sessions,
        outbound_group_sessions: vec![outbound],
        next_batch_token: Some("s42".to_owned()),
        room_settings: [(room.to_owned(), Default::default())].into(),
        ..Default::default()
    };
    store.save_changes(changes).await.unwrap();
    unit.next_sequence(sample::QUEUE, &[]).await.unwrap();
    unit.commit().await.unwrap();
}

async fn rows(store: &PickleStore, disk: &MemoryDisk) -> Rows {
    store.shutdown().await.unwrap();
    let raw = Memory::open(disk).unwrap();
    raw.scan(&[], None, 10_000).await.unwrap()
}

/// The header and the manifest, without which nothing is opened, one byte at a time; every other record at once, byte
/// for byte, and each of them must be found.
#[tokio::test]
async fn st_16_every_flipped_byte_of_every_record_is_seen() {
    let (_, rows) = small().await;
    assert!(!is_seen(&rows).await);
    let frame = |row: &[u8]| matches!(row[0], 0x00 | 0x42);
    for place in (0..rows.len()).filter(|place| frame(&rows[*place].0)) {
        for position in 0..rows[place].1.len() {
            let mut changed = rows.clone();
            changed[place].1[position] ^= 1 << (position % 8);
            assert!(is_seen(&changed).await, "row {place}, byte {position}");
        }
    }
    let longest = rows.iter().map(|(_, value)| value.len()).max().unwrap();
    for position in 0..longest {
        let mut changed = rows.clone();
        let mut flipped = 0;
        for (row, value) in &mut changed {
            if let Some(byte) = value.get_mut(position).filter(|_| !frame(row)) {
                *byte ^= 1 << (position % 8);
                flipped += 1;
            }
        }
        let verified = verify(&changed).await.unwrap();
        assert_eq!(verified.damaged, flipped, "byte {position}");
    }
}

#[tokio::test]
async fn st_16_every_flipped_byte_of_a_name_is_seen() {
    let (_, rows) = small().await;
    for place in 0..rows.len() {
        for position in 0..rows[place].0.len() {
            let mut changed = rows.clone();
            changed[place].0[position] ^= 1 << (position % 8);
            if rows.iter().any(|(row, _)| *row == changed[place].0) {
                // It takes another record's place: that is another test.
                continue;
            }
            assert!(
                is_seen(&changed).await,
                "row {:02x?}, byte {position} of its name",
                rows[place].0
            );
        }
    }
}

#[tokio::test]
async fn st_17_records_that_are_exchanged_moved_or_cut_are_seen() {
    let (_, rows) = small().await;
    for one in 0..rows.len() {
        for other in 0..one {
            let mut changed = rows.clone();
            changed[one].1.clone_from(&rows[other].1);
            changed[other].1.clone_from(&rows[one].1);
            assert!(is_seen(&changed).await, "{one} and {other} exchanged");
            let mut doubled = rows.clone();
            doubled[one].1.clone_from(&rows[other].1);
            assert!(is_seen(&doubled).await, "{other} also in the place of {one}");
        }
        for length in [0, 1, 8, 31, 47, rows[one].1.len() - 1] {
            let mut changed = rows.clone();
            changed[one].1.truncate(length);
            assert!(changed == rows || is_seen(&changed).await, "{one} cut to {length}");
        }
    }
}

/// The names of the kinds of records that may be removed without being missed: what is lost with them comes again, or
/// is seen when it is looked for.
const NOT_MISSED: [u8; 9] = [0x03, 0x08, 0x09, 0x0b, 0x0f, 0x19, 0x40, 0x0a, 0x10];

#[tokio::test]
async fn st_20_what_matters_is_missed_when_it_is_removed() {
    let (_, rows) = small().await;
    let mut missed = BTreeSet::new();
    for place in 0..rows.len() {
        let mut changed = rows.clone();
        let (row, _) = changed.remove(place);
        let seen = is_seen(&changed).await;
        assert_eq!(seen, !NOT_MISSED.contains(&row[0]), "row of table {:#04x}", row[0]);
        if seen {
            missed.insert(row[0]);
        }
    }
    // Header, account, Olm session, outbound session and shares, sync token, room settings, positions, manifest, guarded.
    for table in [0x00, 0x01, 0x02, 0x05, 0x06, 0x14, 0x15, 0x41, 0x42, 0x43] {
        assert!(missed.contains(&table), "table {table:#04x}");
    }
}

#[tokio::test]
async fn st_19_what_matters_is_known_when_it_is_set_back() {
    let (before, rows) = small().await;
    let mut tried = BTreeSet::new();
    for place in 0..rows.len() {
        let Some((_, older)) = before.iter().find(|(row, _)| *row == rows[place].0) else {
            continue;
        };
        if *older == rows[place].1 {
            continue;
        }
        let mut changed = rows.clone();
        changed[place].1.clone_from(older);
        assert!(is_seen(&changed).await, "row of table {:#04x}", rows[place].0[0]);
        tried.insert(rows[place].0[0]);
    }
    for table in [0x01, 0x02, 0x05, 0x06, 0x14, 0x15, 0x41, 0x42, 0x43] {
        assert!(tried.contains(&table), "table {table:#04x}");
    }
    // A record that was removed for good does not come back.
    let disk = MemoryDisk::new();
    let store = PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    let record = RecordId::named(GUARDED, &[], "record");
    let unit = store.begin().await.unwrap();
    unit.put(&record, "gone").unwrap();
    unit.commit().await.unwrap();
    let with = self::rows(&store, &disk).await;
    let store = PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    let unit = store.begin().await.unwrap();
    unit.delete(&record).unwrap();
    unit.commit().await.unwrap();
    let mut without = self::rows(&store, &disk).await;
    let back = with.into_iter().find(|(row, _)| row[0] == 0x43).unwrap();
    without.push(back);
    assert!(is_seen(&without).await);
    let store = open(&without).await.unwrap();
    assert!(matches!(
        store.record::<String>(&record).await,
        Err(StoreError::RolledBack { .. })
    ));
}

/// A caller who reads what was removed or set back is told, and a unit that met it does not commit.
#[tokio::test]
async fn a_read_of_what_is_gone_is_an_error_and_never_absent() {
    let (before, rows) = small().await;
    for (table, set_back) in [0x01, 0x02, 0x05, 0x06, 0x14, 0x15, 0x43]
        .into_iter()
        .flat_map(|table| [(table, false), (table, true)])
    {
        let mut changed = rows.clone();
        if set_back {
            for (row, value) in &mut changed {
                if row[0] == table {
                    value.clone_from(&before.iter().find(|(older, _)| older == row).unwrap().1);
                }
            }
        } else {
            changed.retain(|(row, _)| row[0] != table);
        }
        let store = open(&changed).await.unwrap();
        let unit = store.begin().await.unwrap();
        let room = room_id!("!golden:example.org");
        let error = match table {
            0x01 => store.load_account().await.map(drop),
            0x02 => store.get_sessions(&sample::peer(&store).await).await.map(drop),
            0x05 | 0x06 => store.get_outbound_group_session(room).await.map(drop),
            0x14 => store.next_batch_token().await.map(drop),
            0x15 => store.get_room_settings(room).await.map(drop),
            _ => unit
                .get::<String>(&RecordId::named(GUARDED, &[], "record"))
                .await
                .map(drop),
        };
        let code = error.map_err(|error| error.code());
        assert_eq!(
            code,
            Err("store_rolled_back"),
            "table {table:#04x}, set back: {set_back}"
        );
        assert_eq!(unit.commit().await.unwrap_err().code(), "store_unit_failed");
    }
}

#[tokio::test]
async fn an_older_header_does_not_bring_an_older_key_back() {
    let disk = MemoryDisk::new();
    let store = PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    fill(&store).await;
    let before = rows(&store, &disk).await;
    let store = PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
        .await
        .unwrap();
    let new = KeySource::Bytes(StoreKey::from_bytes([8; 32]));
    store.sealed().rekey(&new).await.unwrap();
    let mut after = rows(&store, &disk).await;
    assert!(matches!(open(&after).await, Err(StoreError::WrongKey)));
    after[0].1.clone_from(&before[0].1);
    assert!(matches!(open(&after).await, Err(StoreError::RolledBack { .. })));
}
