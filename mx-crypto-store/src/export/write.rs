//! Writing an export: beside its place first, and renamed when all of it is on the disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, aead::Payload};
use zeroize::Zeroizing;

use super::{Encryptor, MAGIC, NONCE, SEGMENT, encode};
use crate::{
    KeySource, Result, SealedStore, StoreError,
    header::Header,
    inspect::{Pages, is_content},
    layout::Table,
    random,
    seal::{Keys, STORE_ID},
};

impl SealedStore {
    /// Write the whole store to the file `path`, which must not exist, encrypted under `key`: with a
    /// [`KeySource::File`] a key file is made beside it. Returns how many records it holds. Units of work wait meanwhile.
    ///
    /// An export is for moving: of the store and what is imported from it, use one. Who goes on with both, or goes back
    /// to an older export, uses keys twice.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{Family, KeySource, RecordId, SealedStore, StoreKey, backend::Memory};
    /// # let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    /// # let store = SealedStore::open(Arc::new(Memory::new()), key.clone()).await?;
    ///
    /// # use mx_crypto_store::Passphrase;
    /// # let (directory, disk) = (tempfile::tempdir()?, Memory::new());
    /// # let file = &directory.path().join("mybot.store");
    /// let passphrase = KeySource::Passphrase(Passphrase::new("correct horse battery staple"));
    /// let records = store.export(file, &passphrase).await?;
    /// println!("{records} records: the store goes on from the file, and not from here");
    ///
    /// let moved = SealedStore::import(file, &passphrase, Arc::new(disk), &key).await?;
    /// # drop(moved);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::ExportFile`]; [`StoreError::Corrupt`], since half of a store is not exported; of keys; of the engine.
    /// There is no file `path` then.
    ///
    /// # Cancel safety
    /// A call that was dropped leaves no file `path`; a process that was killed leaves perhaps the beginning of one with
    /// `.part` added to its name, which the next attempt removes.
    pub async fn export(&self, path: &Path, key: &KeySource) -> Result<u64> {
        let _alone = self.core.turn.lock().await;
        self.core.until_idle().await;
        if path.exists() {
            return Err(failed(path)(io::ErrorKind::AlreadyExists.into()));
        }
        if let Some(damage) = self.verify_alone().await?.first_damaged.first() {
            return Err(StoreError::Corrupt { what: damage.records });
        }
        let minted = key.mint().await?;
        let keys = Keys::with_new_seal(&self.core.sealer.keys().names, self.core.sealer.keys().naming)?;
        let id: [u8; STORE_ID] = random::bytes("an id")?;
        let header = Header::wrap(&id, 0, &minted.kdf, &minted.key, &keys)?;
        let mut file = Exported::create(path, header, &keys)?;
        let mut pages = Pages::new();
        let mut records = 0;
        while let Some(page) = pages.next(&self.core).await? {
            for (row, sealed) in page {
                if !is_content(&row) || Table::of(&row) == Some(Table::Lease) {
                    continue;
                }
                file.push(&row, &self.core.sealer.open_record(&row, &sealed)?.value)?;
                records += 1;
            }
        }
        file.finish()?;
        key.settle(&minted.key)?;
        Ok(records)
    }
}

/// An export that is being written.
struct Exported {
    path: PathBuf,
    part: PathBuf,
    file: File,
    /// `None`: the last segment was sealed.
    encryptor: Option<Encryptor>,
    header: Vec<u8>,
    segment: Zeroizing<Vec<u8>>,
}

impl Exported {
    fn create(path: &Path, header: Vec<u8>, keys: &Keys) -> Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let nonce: [u8; NONCE] = random::bytes("a nonce")?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let length = u32::try_from(header.len()).map_err(|_| StoreError::Encode { what: "a header" })?;
        let begin = [&MAGIC[..], &length.to_be_bytes(), &header, &nonce].concat();
        remove_left(&part).map_err(failed(path))?;
        let file = options.open(&part).map_err(failed(path))?;
        // It is dropped with the part from here on.
        let mut exported = Self {
            path: path.to_owned(),
            part,
            file,
            encryptor: Some(Encryptor::from_aead(
                XChaCha20Poly1305::new((&*keys.seal).into()),
                (&nonce).into(),
            )),
            header,
            segment: Zeroizing::default(),
        };
        let begun = exported.file.try_lock().map_err(io::Error::from);
        let begun = begun.and_then(|()| exported.file.write_all(&begin));
        begun.map_err(failed(path))?;
        Ok(exported)
    }

    fn push(&mut self, row: &[u8], value: &[u8]) -> Result<()> {
        encode(&mut self.segment, row, value)?;
        if self.segment.len() < SEGMENT {
            return Ok(());
        }
        let payload = Payload {
            msg: &self.segment,
            aad: &self.header,
        };
        let encryptor = self.encryptor.as_mut();
        let sealed = encryptor
            .and_then(|encryptor| encryptor.encrypt_next(payload).ok())
            .ok_or(StoreError::Encode { what: "an export" })?;
        self.segment = Zeroizing::default();
        self.write(&sealed)
    }

    fn write(&mut self, sealed: &[u8]) -> Result<()> {
        let length = u32::try_from(sealed.len()).map_err(|_| StoreError::Encode { what: "an export" })?;
        let written = self.file.write_all(&length.to_be_bytes());
        written
            .and_then(|()| self.file.write_all(sealed))
            .map_err(failed(&self.path))
    }

    /// The last segment, then the name: a file of that name is whole.
    fn finish(mut self) -> Result<()> {
        let payload = Payload {
            msg: &self.segment,
            aad: &self.header,
        };
        let encryptor = self.encryptor.take();
        let sealed = encryptor
            .and_then(|encryptor| encryptor.encrypt_last(payload).ok())
            .ok_or(StoreError::Encode { what: "an export" })?;
        let length = u32::try_from(sealed.len()).map_err(|_| StoreError::Encode { what: "an export" })?;
        let mut named = || {
            self.file.write_all(&length.to_be_bytes())?;
            self.file.write_all(&sealed)?;
            self.file.sync_all()?;
            place(&self.part, &self.path)?;
            #[cfg(unix)]
            File::open(crate::key::directory(&self.path))?.sync_all()?;
            Ok(())
        };
        named().map_err(failed(&self.path))
    }
}

impl Drop for Exported {
    /// Half of an export is of no use. A whole one has its name already.
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.part);
    }
}

/// What an earlier attempt left goes; another one that is under way stays. A link is removed and not followed.
fn remove_left(part: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(part) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(what) if what.is_file() => File::open(part)?
            .try_lock()
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another export to this file is under way"))?,
        _ => {}
    }
    std::fs::remove_file(part)
}

/// The name, which replaces nothing that came in between: in one step where the system has one, since whoever dies between
/// two leaves a part beside a file that may arrive. Where a file system knows no second names either, what is there is
/// looked at before.
fn place(part: &Path, path: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::{fs, io::Errno};
        match fs::renameat_with(fs::CWD, part, fs::CWD, path, fs::RenameFlags::NOREPLACE) {
            // The file system does not know how, or the kernel.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
    }
    match std::fs::hard_link(part, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            if path.exists() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(part, path)
        }
        linked => linked,
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::ExportFile {
        path: path.clone(),
        source,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_in_one_step_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (part, path) = (directory.path().join("file.part"), directory.path().join("file"));
        std::fs::write(&part, "whole").unwrap();
        place(&part, &path).unwrap();
        assert!(!part.exists(), "whoever is killed here does not leave both names");
        std::fs::write(&part, "another").unwrap();
        let taken = place(&part, &path).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        assert!(part.exists());
    }
}
