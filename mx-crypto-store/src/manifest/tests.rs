//! The manifest is a map of versions that misses nothing.

use proptest::prelude::*;

use super::*;

/// A disk of nodes: what `Change::rows` wrote.
type Disk = BTreeMap<Row, (u64, Vec<u8>)>;

fn write(disk: &mut Disk, change: &Change) {
    for (row, value) in change.rows() {
        match value {
            Some(value) => disk.insert(row, (change.root.counter, value)),
            None => disk.remove(&row),
        };
    }
}

/// Answer a question, loading from the disk what it misses.
fn ask<T>(
    manifest: &mut Manifest,
    disk: &Disk,
    question: impl Fn(&Manifest) -> std::result::Result<T, Missing>,
) -> Result<T> {
    loop {
        match question(manifest) {
            Ok(answer) => return Ok(answer),
            Err(node) => {
                let read = disk.get(&node.row());
                manifest.load(node, read.map(|(version, value)| (*version, value.as_slice())))?;
            }
        }
    }
}

fn row(table: Table, group: u8, name: u8) -> Row {
    let mut row = vec![table as u8];
    row.extend([group; 16]);
    row.extend([name; 16]);
    row
}

fn reopened(disk: &Disk) -> Manifest {
    let root = disk.get(ROOT_ROW).map(|(_, value)| Root::decode(value).unwrap());
    Manifest::new(root.unwrap_or_default())
}

proptest! {
    /// Whatever is written and removed, in memory or after a reopening, the manifest says what a map says.
    #[test]
    fn it_is_a_map_of_versions(commits in prop::collection::vec(
        (prop::collection::vec((0..3_u8, 0..3_u8, 0..4_u8, any::<bool>()), 1..5), any::<bool>()), 1..20,
    )) {
        let tables = [Table::OlmSession, Table::OutboundGroupSession, Table::GuardedRecord];
        let mut disk = Disk::new();
        let mut manifest = Manifest::default();
        let mut model: BTreeMap<Row, u64> = BTreeMap::new();
        for (writes, reopen) in commits {
            let rows: BTreeMap<Row, bool> = writes
                .iter()
                .map(|(table, group, name, exists)| (row(tables[usize::from(*table)], *group, *name), *exists))
                .collect();
            let question = |manifest: &Manifest| {
                manifest.change(rows.iter().filter_map(|(row, exists)| Some((leaf_of(row)?, row.as_slice(), *exists))))
            };
            if let Some(change) = ask(&mut manifest, &disk, question).unwrap() {
                write(&mut disk, &change);
                for (row, exists) in &rows {
                    if *exists {
                        model.insert(row.clone(), change.root.counter);
                    } else {
                        model.remove(row);
                    }
                }
                manifest.apply(change);
            }
            if reopen {
                manifest = reopened(&disk);
            }
            for table in tables {
                let seen = ask(&mut manifest, &disk, |manifest| manifest.under(&[table as u8], None)).unwrap();
                let expected: BTreeMap<Row, u64> = model.iter().filter(|(row, _)| row[0] == table as u8).map(|(row, version)| (row.clone(), *version)).collect();
                prop_assert_eq!(&seen, &expected);
                for (row, version) in expected {
                    let found = ask(&mut manifest, &disk, |manifest| manifest.version(leaf_of(&row).unwrap(), &row)).unwrap();
                    prop_assert_eq!(found, Some(version));
                }
            }
        }
    }
}

#[test]
fn a_node_that_is_gone_or_older_is_seen() {
    let mut disk = Disk::new();
    let mut manifest = Manifest::default();
    let mut older = Vec::new();
    for name in 0..2 {
        let row = row(Table::OutboundGroupSession, 0, name);
        let change = manifest
            .change([(leaf_of(&row).unwrap(), row.as_slice(), true)].into_iter())
            .unwrap()
            .unwrap();
        write(&mut disk, &change);
        manifest.apply(change);
        older.push(disk.clone());
    }
    let prefix = [Table::OutboundGroupSession as u8];
    let all = |disk: &Disk| ask(&mut reopened(disk), disk, |manifest| manifest.under(&prefix, None));
    assert_eq!(all(&disk).unwrap().len(), 2);
    for node in disk.keys().filter(|row| row.as_slice() != ROOT_ROW) {
        let mut without = disk.clone();
        without.remove(node);
        assert!(matches!(all(&without), Err(StoreError::RolledBack { .. })), "gone");
        if let Some(old) = older[0].get(node).filter(|old| old.0 != disk[node].0) {
            let mut with_old = disk.clone();
            with_old.insert(node.clone(), old.clone());
            assert!(matches!(all(&with_old), Err(StoreError::RolledBack { .. })), "older");
        }
    }
}
