//! What can be on a disk after a power cut: what was synced, and of the rest any sectors in any order.

use std::collections::{BTreeMap, BTreeSet};

use crate::recorder::{Event, Files, write};

const SECTOR: usize = 512;

/// A file as the disk has it, and what happened to it since it was synced.
#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

/// The files as they were after some events.
#[derive(Clone, Default)]
pub(crate) struct Platter {
    files: BTreeMap<String, File>,
    /// Files that were removed, where no sync has come since: they may be there again.
    removed: BTreeMap<String, File>,
}

impl Platter {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event {
            Event::Create { file } => {
                self.files.insert(file.clone(), File::default());
            }
            Event::Write { file, offset, data } => self.change(
                file,
                Change::Write {
                    offset: *offset,
                    data: data.clone(),
                },
            ),
            Event::SetLen { file, len } => self.change(file, Change::SetLen(*len)),
            Event::Sync { file } => {
                // The names of a directory go with a sync of a file in it: what the journal of a file system does.
                self.removed.clear();
                if let Some(file) = self.files.get_mut(file) {
                    file.synced = file.newest();
                    file.since.clear();
                }
            }
            Event::Delete { file } => {
                if let Some(removed) = self.files.remove(file) {
                    self.removed.insert(file.clone(), removed);
                }
            }
            Event::Begin(_) | Event::Acknowledged(_) => {}
        }
    }

    fn change(&mut self, file: &str, change: Change) {
        self.files.entry(file.to_owned()).or_default().since.push(change);
    }

    /// Everything was written in time.
    pub(crate) fn newest(&self) -> Files {
        let newest = |(name, file): (&String, &File)| (name.clone(), file.newest());
        self.files.iter().map(newest).collect()
    }

    /// Nothing was written but by a sync.
    pub(crate) fn oldest(&self) -> Files {
        let files = self.removed.iter().chain(&self.files);
        files.map(|(name, file)| (name.clone(), file.synced.clone())).collect()
    }

    /// Of what was not synced, some sectors are there and some are not.
    pub(crate) fn torn(&self, random: &mut fastrand::Rng) -> Files {
        let removed: Vec<_> = self.removed.iter().filter(|_| random.bool()).collect();
        let files = removed.into_iter().chain(&self.files);
        files.map(|(name, file)| (name.clone(), file.torn(random))).collect()
    }

    /// There is something that a power cut can tear.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.removed.is_empty() || self.files.values().any(|file| !file.since.is_empty())
    }
}

impl File {
    /// The file after each change since the sync, the first is before all of them.
    fn versions(&self) -> Vec<Vec<u8>> {
        let mut versions = vec![self.synced.clone()];
        for change in &self.since {
            let mut next = versions[versions.len() - 1].clone();
            match change {
                Change::Write { offset, data } => write(&mut next, *offset, data),
                Change::SetLen(len) => next.resize(*len, 0),
            }
            versions.push(next);
        }
        versions
    }

    fn newest(&self) -> Vec<u8> {
        let mut file = self.synced.clone();
        for change in &self.since {
            match change {
                Change::Write { offset, data } => write(&mut file, *offset, data),
                Change::SetLen(len) => file.resize(*len, 0),
            }
        }
        file
    }

    /// Each sector is as it was after any of the changes, whichever it was after for its neighbours.
    fn torn(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        if self.since.is_empty() {
            return self.synced.clone();
        }
        let versions = self.versions();
        let mut file = self.synced.clone();
        file.resize(versions[random.usize(..versions.len())].len(), 0);
        let touched: BTreeSet<usize> = self.since.iter().flat_map(Change::sectors).collect();
        // Now and then nearly all of it is there, and now and then nearly nothing.
        let share = random.f64();
        for start in touched.into_iter().map(|sector| sector * SECTOR) {
            if start >= file.len() || random.f64() > share {
                continue;
            }
            let version = &versions[random.usize(1..versions.len())];
            let end = (start + SECTOR).min(file.len());
            let here = &version[start.min(version.len())..end.min(version.len())];
            file[start..start + here.len()].copy_from_slice(here);
            file[start + here.len()..end].fill(0);
        }
        file
    }
}

impl Change {
    fn sectors(&self) -> std::ops::Range<usize> {
        match self {
            Self::Write { offset, data } => offset / SECTOR..(offset + data.len()).div_ceil(SECTOR),
            Self::SetLen(_) => 0..0,
        }
    }
}
