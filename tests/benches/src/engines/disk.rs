//! A disk that is written by playing back a trace, and that forgets what no barrier made durable.
//!
//! # Why this model
//! It is that of ext4 with its journal, read against the engine where that leaves a choice. The bytes and the length of
//! a file are durable from the end of an `fsync` or `fdatasync` of it, as far as they were written when that began.
//! Names (created, renamed, removed) are durable with the next barrier on any file, since the journal is one.
//! `sync_file_range` makes nothing durable: it neither writes metadata nor empties the disk's own cache. A real disk may
//! keep some of what this one forgets, so that a loss here is one that may happen, and none here is none.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::Context as _;

use super::trace::{Call, File, Phase};

/// The file under a name, by its number.
type Names = BTreeMap<String, usize>;

#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Paths under this one are on the disk.
    root: String,
    names: Names,
    durable_names: Names,
    files: Vec<Content>,
    /// Where the next `write` of a descriptor goes; `None`: to the end.
    positions: HashMap<u32, Option<u64>>,
    /// Real barriers, and calls that only look like one.
    pub(super) syncs: u64,
    pub(super) weak_syncs: u64,
}

/// What is in a file: what is durable, and what was written since.
#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// How many changes the barrier covers that has begun and not returned.
    covered: Option<usize>,
    length: u64,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Disk {
    pub(super) fn new(root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            root: root.to_str().context("the directory's name is no UTF-8")?.to_owned(),
            ..Self::default()
        })
    }

    /// Plays back a call.
    pub(super) fn play(&mut self, phase: Phase, call: Call) {
        match (phase, call) {
            (Phase::Begun, Call::Sync { file }) => {
                if let Some(content) = self.content(&file.path) {
                    content.covered = Some(content.pending.len());
                }
            }
            (Phase::Begun, _) => {}
            (Phase::Done, Call::Open { file, truncate, append }) => self.open(&file, truncate, append),
            (Phase::Done, Call::Write { file, bytes, at }) => self.write(&file, bytes, at),
            (Phase::Done, Call::Seek { file, to }) => {
                self.positions.insert(file.descriptor, Some(to));
            }
            (Phase::Done, Call::Truncate { file, length }) => {
                if let Some(content) = self.content(&file.path) {
                    content.length = length;
                    content.pending.push(Change::Truncate(length));
                }
            }
            (Phase::Done, Call::Rename { from, to }) => {
                if let Some(number) = self.names.remove(&from) {
                    self.names.insert(to, number);
                }
            }
            (Phase::Done, Call::Remove { path }) => {
                self.names.remove(&path);
            }
            (Phase::Done, Call::Sync { file }) => self.sync(&file),
            (Phase::Done, Call::WeakSync) => self.weak_syncs += 1,
        }
    }

    fn content(&mut self, path: &str) -> Option<&mut Content> {
        self.names.get(path).and_then(|number| self.files.get_mut(*number))
    }

    fn open(&mut self, file: &File, truncate: bool, append: bool) {
        if !file.path.starts_with(&self.root) {
            return;
        }
        if !self.names.contains_key(&file.path) {
            self.names.insert(file.path.clone(), self.files.len());
            self.files.push(Content::default());
        }
        self.positions.insert(file.descriptor, (!append).then_some(0));
        if let Some(content) = self.content(&file.path).filter(|_| truncate) {
            content.length = 0;
            content.pending.push(Change::Truncate(0));
        }
    }

    fn write(&mut self, file: &File, bytes: Vec<u8>, at: Option<u64>) {
        let position = self.positions.get(&file.descriptor).copied().flatten();
        let Some(content) = self.content(&file.path) else {
            return;
        };
        let start = at.or(position).unwrap_or(content.length);
        let end = start + bytes.len() as u64;
        content.length = content.length.max(end);
        content.pending.push(Change::Write(start, bytes));
        if at.is_none() && position.is_some() {
            self.positions.insert(file.descriptor, Some(end));
        }
    }

    fn sync(&mut self, file: &File) {
        if !file.path.starts_with(&self.root) {
            return;
        }
        self.syncs += 1;
        self.durable_names = self.names.clone();
        if let Some(content) = self.content(&file.path) {
            let covered = content.covered.take().unwrap_or(content.pending.len());
            for change in content.pending.drain(..covered) {
                change.apply(&mut content.durable);
            }
        }
    }

    /// Makes durable what was written, as an orderly shutdown would.
    pub(super) fn sync_all(&mut self) {
        self.durable_names = self.names.clone();
        for content in &mut self.files {
            for change in content.pending.drain(..) {
                change.apply(&mut content.durable);
            }
        }
    }

    /// Writes into an empty directory what is durable.
    pub(super) fn image(&self, directory: &Path) -> anyhow::Result<()> {
        for (name, number) in &self.durable_names {
            let relative = name.strip_prefix(&self.root).unwrap_or(name).trim_start_matches('/');
            // Directories were opened too, to be synced.
            if relative.is_empty() || self.is_directory(name) {
                continue;
            }
            let path = directory.join(relative);
            fs::create_dir_all(path.parent().context("a file is in no directory")?)?;
            let content = self.files.get(*number).context("a name has no file")?;
            fs::write(path, &content.durable)?;
        }
        Ok(())
    }

    fn is_directory(&self, name: &str) -> bool {
        let inside = format!("{name}/");
        self.names.keys().any(|other| other.starts_with(&inside))
    }
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        let length = |length: u64| usize::try_from(length).unwrap_or(usize::MAX);
        match self {
            Self::Truncate(to) => bytes.resize(length(to), 0),
            Self::Write(start, written) => {
                let (start, end) = (length(start), length(start).saturating_add(written.len()));
                bytes.resize(end.max(bytes.len()), 0);
                if let Some(place) = bytes.get_mut(start..end) {
                    place.copy_from_slice(&written);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/store/file";

    fn file() -> File {
        File {
            descriptor: 3,
            path: PATH.to_owned(),
        }
    }

    fn open() -> Call {
        Call::Open {
            file: file(),
            truncate: false,
            append: false,
        }
    }

    fn write(bytes: &[u8], at: Option<u64>) -> Call {
        Call::Write {
            file: file(),
            bytes: bytes.to_vec(),
            at,
        }
    }

    fn sync() -> Call {
        Call::Sync { file: file() }
    }

    /// What is left of the file after these calls.
    fn left(calls: Vec<(Phase, Call)>) -> Option<Vec<u8>> {
        let mut disk = Disk::new(Path::new("/store")).unwrap();
        for (phase, call) in calls {
            disk.play(phase, call);
        }
        let image = tempfile::tempdir().unwrap();
        disk.image(image.path()).unwrap();
        fs::read(image.path().join("file")).ok()
    }

    #[test]
    fn only_a_barrier_makes_durable() {
        use Phase::Done;
        assert_eq!(left(vec![(Done, open()), (Done, write(b"a", None))]), None);
        let weak = vec![(Done, open()), (Done, write(b"a", None)), (Done, Call::WeakSync)];
        assert_eq!(left(weak), None);
        let synced = vec![
            (Done, open()),
            (Done, write(b"ab", None)),
            (Done, write(b"c", None)),
            (Done, write(b"x", Some(1))),
            (Done, sync()),
            (Done, write(b"lost", Some(0))),
        ];
        assert_eq!(left(synced).as_deref(), Some(&b"axc"[..]));
    }

    #[test]
    fn a_barrier_covers_what_was_written_when_it_began() {
        use Phase::{Begun, Done};
        let calls = vec![
            (Done, open()),
            (Done, write(b"a", Some(0))),
            (Begun, sync()),
            (Done, write(b"b", Some(1))),
            (Done, sync()),
        ];
        assert_eq!(left(calls).as_deref(), Some(&b"a"[..]));
    }

    #[test]
    fn a_name_is_durable_with_the_next_barrier() {
        use Phase::Done;
        let renamed = Call::Rename {
            from: "/store/temporary".to_owned(),
            to: PATH.to_owned(),
        };
        let temporary = File {
            descriptor: 4,
            path: "/store/temporary".to_owned(),
        };
        let calls = vec![
            (
                Done,
                Call::Open {
                    file: temporary.clone(),
                    truncate: false,
                    append: false,
                },
            ),
            (
                Done,
                Call::Write {
                    file: temporary.clone(),
                    bytes: b"a".to_vec(),
                    at: None,
                },
            ),
            (Done, Call::Sync { file: temporary }),
            (Done, renamed),
        ];
        assert_eq!(left(calls.clone()), None);
        let synced = calls.into_iter().chain([(Done, sync())]).collect();
        assert_eq!(left(synced).as_deref(), Some(&b"a"[..]));
    }
}
