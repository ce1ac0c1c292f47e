//! The manifest: which version of each guarded row is the newest. Pure: no I/O.
//!
//! A sealed record that is replaced by an older one of the same row still opens, and one that is deleted is just not
//! there. So each commit that changes guarded rows is numbered, each of them carries its number as its version, and the
//! manifest, sealed as well and written in the same commit, tells which version is the newest. It is a tree of three
//! levels (root, table, leaf) in which each node names the version of those below it: a commit writes the leaves that
//! it touches and the path above them, and a read needs no more than its own path, which stays in memory.
//!
//! A whole store that is set back to a whole older copy of itself has a manifest that agrees with it; that is not seen
//! here.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::{
    Result, StoreError,
    layout::{Row, Table},
};

/// The row of the root.
pub(crate) const ROOT_ROW: &[u8] = &[Table::Manifest as u8];

/// The version of each entry, by the part of its row that follows the table.
pub(crate) type Entries = BTreeMap<Vec<u8>, u64>;

/// Where a leaf is: its table, and the byte that spreads the table's rows.
pub(crate) type LeafId = (u8, u8);

/// The top of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Root {
    /// The number of the last commit that changed guarded rows.
    pub(crate) counter: u64,
    /// Which header belongs to it.
    pub(crate) header_generation: u64,
    tables: BTreeMap<u8, u64>,
}

/// What is known of the tree. Nodes that are not loaded are not absent.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) root: Root,
    tables: BTreeMap<u8, BTreeMap<u8, u64>>,
    leaves: BTreeMap<LeafId, Entries>,
}

/// A node that has to be loaded first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Table(u8),
    Leaf(LeafId),
}

impl Missing {
    pub(crate) fn row(self) -> Row {
        match self {
            Self::Table(table) => vec![Table::Manifest as u8, table],
            Self::Leaf((table, byte)) => vec![Table::Manifest as u8, table, byte],
        }
    }
}

/// What a commit changes in the tree.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) root: Root,
    tables: BTreeMap<u8, BTreeMap<u8, u64>>,
    leaves: BTreeMap<LeafId, Entries>,
}

/// Where the version of a guarded row is kept. `None`: the row is not guarded.
pub(crate) fn leaf_of(row: &[u8]) -> Option<LeafId> {
    let table = Table::of(row).filter(|table| table.is_guarded())?;
    Some((table as u8, row.get(table.spread()).copied().unwrap_or_default()))
}

impl Manifest {
    pub(crate) const fn new(root: Root) -> Self {
        Self {
            root,
            tables: BTreeMap::new(),
            leaves: BTreeMap::new(),
        }
    }

    /// The newest version of a guarded row; `None`: it is to be absent.
    pub(crate) fn version(&self, leaf: LeafId, row: &[u8]) -> std::result::Result<Option<u64>, Missing> {
        Ok(self.leaf(leaf)?.and_then(|entries| entries.get(row.get(1..)?)).copied())
    }

    fn leaf(&self, leaf: LeafId) -> std::result::Result<Option<&Entries>, Missing> {
        if let Some(entries) = self.leaves.get(&leaf) {
            return Ok(Some(entries));
        }
        match self.table(leaf.0)? {
            Some(table) if table.contains_key(&leaf.1) => Err(Missing::Leaf(leaf)),
            _ => Ok(None),
        }
    }

    fn table(&self, table: u8) -> std::result::Result<Option<&BTreeMap<u8, u64>>, Missing> {
        match self.tables.get(&table) {
            Some(node) => Ok(Some(node)),
            None if self.root.tables.contains_key(&table) => Err(Missing::Table(table)),
            None => Ok(None),
        }
    }

    /// The guarded rows that must exist under `prefix`, strictly after `after`.
    pub(crate) fn under(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> std::result::Result<BTreeMap<Row, u64>, Missing> {
        let mut found = BTreeMap::new();
        let Some(table) = Table::of(prefix).filter(|table| table.is_guarded()) else {
            return Ok(found);
        };
        let Some(node) = self.table(table as u8)? else {
            return Ok(found);
        };
        let bytes = match prefix.get(table.spread()) {
            Some(byte) => *byte..=*byte,
            None => 0..=u8::MAX,
        };
        for byte in node.range(bytes).map(|(byte, _)| *byte) {
            let rest = prefix.get(1..).unwrap_or_default();
            for (name, version) in self.leaf((table as u8, byte))?.into_iter().flatten() {
                if name.starts_with(rest) {
                    let row = [&[table as u8], name.as_slice()].concat();
                    if after.is_none_or(|after| row.as_slice() > after) {
                        found.insert(row, *version);
                    }
                }
            }
        }
        Ok(found)
    }

    /// A node that was read from the disk: `version` as it is sealed with it, `None` when it is missing.
    ///
    /// # Errors
    /// [`StoreError::RolledBack`] when it is not the one that the node above it names.
    pub(crate) fn load(&mut self, node: Missing, read: Option<(u64, &[u8])>) -> Result<()> {
        let named = match node {
            Missing::Table(table) => self.root.tables.get(&table),
            Missing::Leaf((table, byte)) => self.tables.get(&table).and_then(|table| table.get(&byte)),
        };
        let Some((_, value)) = read.filter(|(version, _)| Some(version) == named) else {
            return Err(StoreError::RolledBack {
                what: "the list of what it holds",
            });
        };
        match node {
            Missing::Table(table) => {
                self.tables.insert(table, decode_bytes(value)?);
            }
            Missing::Leaf(leaf) => {
                self.leaves.insert(leaf, decode(value)?);
            }
        }
        Ok(())
    }

    /// What it takes to write these guarded rows (`false`: to remove one). `None`: nothing changes.
    pub(crate) fn change<'a>(
        &self,
        rows: impl Iterator<Item = (LeafId, &'a [u8], bool)>,
    ) -> std::result::Result<Option<Change>, Missing> {
        let mut root = self.root.clone();
        root.counter = root.counter.saturating_add(1);
        let mut change = Change {
            root,
            tables: BTreeMap::new(),
            leaves: BTreeMap::new(),
        };
        let mut changed = false;
        for (leaf, row, exists) in rows {
            let entries = match change.leaves.entry(leaf) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.leaf(leaf)?.cloned().unwrap_or_default()),
            };
            let Some(name) = row.get(1..) else { continue };
            changed |= if exists {
                entries.insert(name.to_vec(), change.root.counter);
                true
            } else {
                entries.remove(name).is_some()
            };
        }
        if !changed {
            return Ok(None);
        }
        for ((table, byte), entries) in &change.leaves {
            let node = match change.tables.entry(*table) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.table(*table)?.cloned().unwrap_or_default()),
            };
            if entries.is_empty() {
                node.remove(byte);
            } else {
                node.insert(*byte, change.root.counter);
            }
        }
        for (table, node) in &change.tables {
            if node.is_empty() {
                change.root.tables.remove(table);
            } else {
                change.root.tables.insert(*table, change.root.counter);
            }
        }
        Ok(Some(change))
    }

    /// The change is on the disk.
    pub(crate) fn apply(&mut self, change: Change) {
        self.root = change.root;
        self.tables.extend(change.tables);
        self.leaves.extend(change.leaves);
        self.tables.retain(|_, node| !node.is_empty());
        self.leaves.retain(|_, entries| !entries.is_empty());
    }
}

impl Change {
    /// The rows that the change writes, with their plaintext; `None` removes one.
    pub(crate) fn rows(&self) -> Vec<(Row, Option<Vec<u8>>)> {
        let some = |encoded: Vec<u8>, empty: bool| (!empty).then_some(encoded);
        let leaves = self
            .leaves
            .iter()
            .map(|(leaf, entries)| (Missing::Leaf(*leaf).row(), some(encode(entries), entries.is_empty())));
        let tables = self
            .tables
            .iter()
            .map(|(table, node)| (Missing::Table(*table).row(), some(encode_bytes(node), node.is_empty())));
        leaves
            .chain(tables)
            .chain([(ROOT_ROW.to_vec(), Some(self.root.encode()))])
            .collect()
    }
}

impl Root {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoded = self.counter.to_be_bytes().to_vec();
        encoded.extend_from_slice(&self.header_generation.to_be_bytes());
        encoded.extend_from_slice(&encode_bytes(&self.tables));
        encoded
    }

    pub(crate) fn decode(encoded: &[u8]) -> Result<Self> {
        let (counter, rest) = encoded.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (header_generation, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        Ok(Self {
            counter: u64::from_be_bytes(*counter),
            header_generation: u64::from_be_bytes(*header_generation),
            tables: decode_bytes(rest)?,
        })
    }
}

fn encode_bytes(node: &BTreeMap<u8, u64>) -> Vec<u8> {
    node.iter()
        .flat_map(|(byte, version)| std::iter::once(*byte).chain(version.to_be_bytes()))
        .collect()
}

fn decode_bytes(mut encoded: &[u8]) -> Result<BTreeMap<u8, u64>> {
    let mut node = BTreeMap::new();
    while let Some((byte, rest)) = encoded.split_first() {
        let (version, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        node.insert(*byte, u64::from_be_bytes(*version));
        encoded = rest;
    }
    Ok(node)
}

fn encode(entries: &Entries) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(entries.len() * 41);
    for (name, version) in entries {
        // A row has 33 bytes at most.
        encoded.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        encoded.extend_from_slice(name);
        encoded.extend_from_slice(&version.to_be_bytes());
    }
    encoded
}

fn decode(mut encoded: &[u8]) -> Result<Entries> {
    let mut entries = Entries::new();
    while let Some((length, rest)) = encoded.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(damaged)?;
        let (version, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        entries.insert(name.to_vec(), u64::from_be_bytes(*version));
        encoded = rest;
    }
    Ok(entries)
}

const fn damaged() -> StoreError {
    StoreError::Corrupt {
        what: "the list of what it holds",
    }
}

#[cfg(test)]
mod tests;
