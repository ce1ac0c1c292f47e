//! A disk in memory that remembers every write and sync, and fails when it is told to.

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Result},
    sync::{Arc, Mutex},
};

/// What happened, in order.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Create {
        file: String,
    },
    Write {
        file: String,
        offset: usize,
        data: Vec<u8>,
    },
    SetLen {
        file: String,
        len: usize,
    },
    Sync {
        file: String,
    },
    Delete {
        file: String,
    },
    /// The story began this commit.
    Begin(u64),
    /// This commit returned `Ok`.
    Acknowledged(u64),
}

/// The n-th write or sync fails, counted from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) for_ever: bool,
    pub(crate) full: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Default)]
struct State {
    files: Files,
    events: Vec<Event>,
    /// How many writes and syncs there were.
    operations: u64,
    syncs: u64,
    fault: Option<Fault>,
}

impl State {
    /// Count a write or a sync, or fail it.
    fn count(&mut self) -> Result<()> {
        self.operations += 1;
        match self.fault {
            Some(fault) if fault.at == self.operations || (fault.for_ever && fault.at < self.operations) => {
                let (full, broken) = (rustix::io::Errno::NOSPC, rustix::io::Errno::IO);
                Err(if fault.full { full } else { broken }.into())
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, name: &str) -> Result<&mut Vec<u8>> {
        self.files.get_mut(name).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk {
    pub(crate) fn of(files: Files) -> Self {
        Self(Arc::new(Mutex::new(State {
            files,
            ..State::default()
        })))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().events.clone()
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.0.lock().unwrap().fault = fault;
    }

    /// Forget everything: SQLite keeps a file system for as long as the process lives.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap() = State::default();
    }

    pub(crate) fn note(&self, event: Event) {
        self.0.lock().unwrap().events.push(event);
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.0.lock().unwrap().files.contains_key(name)
    }

    pub(crate) fn create(&self, name: &str) {
        let mut state = self.0.lock().unwrap();
        if !state.files.contains_key(name) {
            state.files.insert(name.to_owned(), Vec::new());
            state.events.push(Event::Create { file: name.to_owned() });
        }
    }

    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        state.count()?;
        state.files.remove(name).ok_or(ErrorKind::NotFound)?;
        state.events.push(Event::Delete { file: name.to_owned() });
        Ok(())
    }

    pub(crate) fn len(&self, name: &str) -> Result<usize> {
        Ok(self.0.lock().unwrap().file(name)?.len())
    }

    /// Fill `out`; what is behind the end is zero, and an error.
    pub(crate) fn read(&self, name: &str, offset: usize, out: &mut [u8]) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        let rest = state.file(name)?.get(offset..).unwrap_or_default();
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        out[length..].fill(0);
        if length < out.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    pub(crate) fn write(&self, name: &str, offset: usize, data: &[u8]) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        state.count()?;
        write(state.file(name)?, offset, data);
        state.events.push(Event::Write {
            file: name.to_owned(),
            offset,
            data: data.to_vec(),
        });
        Ok(())
    }

    pub(crate) fn set_len(&self, name: &str, len: usize) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        state.count()?;
        state.file(name)?.resize(len, 0);
        let file = name.to_owned();
        state.events.push(Event::SetLen { file, len });
        Ok(())
    }

    pub(crate) fn sync(&self, name: &str) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        state.count()?;
        state.syncs += 1;
        state.events.push(Event::Sync { file: name.to_owned() });
        Ok(())
    }
}

pub(crate) fn write(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if file.len() < offset + data.len() {
        file.resize(offset + data.len(), 0);
    }
    file[offset..offset + data.len()].copy_from_slice(data);
}

/// An error of the kind that `sqlite-vfs` turns into `SQLITE_FULL`.
pub(crate) fn full(error: Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull => ErrorKind::WriteZero.into(),
        _ => error,
    }
}
