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
    /// # Errors
    /// [`StoreError::ExportFile`]; [`StoreError::Corrupt`], since half of a store is not exported; of keys; of the engine. There is no file `path` then.
    ///
    /// # Cancel safety
    /// A call that was dropped leaves no file `path`, and perhaps the beginning of one with `.part` added to its name.
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
    encryptor: Encryptor,
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
        // What an earlier attempt left; a link is removed and not followed.
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(path)(error)),
            _ => {}
        }
        let mut file = options.open(&part).map_err(failed(path))?;
        file.write_all(&begin).map_err(failed(path))?;
        Ok(Self {
            path: path.to_owned(),
            part,
            file,
            encryptor: Encryptor::from_aead(XChaCha20Poly1305::new((&*keys.seal).into()), (&nonce).into()),
            header,
            segment: Zeroizing::default(),
        })
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
        let sealed = self
            .encryptor
            .encrypt_next(payload)
            .map_err(|_| StoreError::Encode { what: "an export" })?;
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
        let segment = std::mem::take(&mut self.segment);
        let encryptor = self.encryptor;
        let payload = Payload {
            msg: &segment,
            aad: &self.header,
        };
        let sealed = encryptor
            .encrypt_last(payload)
            .map_err(|_| StoreError::Encode { what: "an export" })?;
        let length = u32::try_from(sealed.len()).map_err(|_| StoreError::Encode { what: "an export" })?;
        let mut named = || {
            self.file.write_all(&length.to_be_bytes())?;
            self.file.write_all(&sealed)?;
            self.file.sync_all()?;
            std::fs::rename(&self.part, &self.path)?;
            #[cfg(unix)]
            File::open(crate::key::directory(&self.path))?.sync_all()?;
            Ok(())
        };
        named().map_err(failed(&self.path))
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::ExportFile {
        path: path.clone(),
        source,
    }
}
