//! Reading an export into an empty engine: the header of the new store comes last, when all of the file was genuine.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use chacha20poly1305::{KeyInit, XChaCha20Poly1305, aead::Payload};
use zeroize::Zeroizing;

use super::{Decryptor, MAGIC, MAX_HEADER, MAX_SEGMENT, NONCE, damaged, decode};
use crate::{
    KeySource, Result, SealedStore, StoreError,
    backend::{Backend, Caught},
    commit::{change_of, sealed_batch},
    copy::begin_anew,
    header::Header,
    inspect::is_content,
    layers::{Overlay, Plain},
    layout::{Row, Table},
    manifest::Manifest,
    random,
    seal::{Keys, STORE_ID, Sealer},
    sealed,
};

impl SealedStore {
    /// Make a store in `backend`, which is empty, of the export in the file `path` that `key` opens; `new_key` opens the
    /// store. Returns the store.
    ///
    /// The sessions that rooms are sent with are left out, so that each room begins a new one: the exported store may
    /// have gone on with them, and a message index must never be used twice.
    ///
    /// ```no_run
    /// # async fn example(backend: std::sync::Arc<dyn mx_crypto_store::backend::Backend>) -> mx_crypto_store::Result<()> {
    /// use mx_crypto_store::{KeySource, Passphrase, SealedStore};
    ///
    /// // The passphrase of the file, and the key that the store is to have here.
    /// let passphrase = KeySource::Passphrase(Passphrase::new("correct horse battery staple"));
    /// let key = KeySource::File("/var/lib/mybot/pickle.key".into());
    /// let store = SealedStore::import("/mnt/stick/mybot.store".as_ref(), &passphrase, backend, &key).await?;
    /// println!("{} records", store.stats().await?.records.values().sum::<u64>());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::ExportFile`]; [`StoreError::WrongKey`]; [`StoreError::Corrupt`] when the file is damaged or not
    /// whole; [`StoreError::NotEmpty`]; of keys; of the engine. There is no store in `backend` then.
    ///
    /// # Cancel safety
    /// Safe to repeat: what an earlier attempt left in `backend` without a header is removed.
    pub async fn import(path: &Path, key: &KeySource, backend: Arc<dyn Backend>, new_key: &KeySource) -> Result<Self> {
        let mut file = Import::open(path, key).await?;
        begin_anew(&*backend).await?;
        let minted = new_key.mint().await?;
        let keys = Keys::with_new_seal(&file.keys.names, file.keys.naming)?;
        let store_id: [u8; STORE_ID] = random::bytes("a store id")?;
        let header = Header::wrap(&store_id, 0, &minted.kdf, &minted.key, &keys)?;
        let sealer = Sealer::new(keys, store_id)?;
        let mut manifest = Manifest::default();
        while let Some(rows) = file.next()? {
            let overlay: Overlay = rows
                .into_iter()
                .filter(|(row, _)| is_content(row) && !is_sending(row))
                .map(|(row, value)| (row, Some(value)))
                .collect();
            let change = change_of(&manifest, &overlay).map_err(|_| damaged())?;
            backend
                .commit(sealed_batch(&sealer, &overlay, change.as_ref())?)
                .await?;
            if let Some(change) = change {
                manifest.apply(change);
            }
        }
        sealed::finish_new(&*backend, &sealer, &manifest, header).await?;
        new_key.settle(&minted.key)?;
        Ok(Self::over(Caught::over(backend), sealer, manifest))
    }
}

/// A record of a session that rooms are sent with.
fn is_sending(row: &[u8]) -> bool {
    matches!(
        Table::of(row),
        Some(Table::OutboundGroupSession | Table::OutboundGroupSessionShares | Table::OutboundGroupSessionProgress)
    )
}

/// An export that is being read.
struct Import {
    reader: BufReader<File>,
    keys: Keys,
    header: Vec<u8>,
    /// `None`: the last segment was read.
    decryptor: Option<Decryptor>,
    /// The segment that comes next: only after it is it known whether it is the last.
    ahead: Option<Vec<u8>>,
}

impl Import {
    async fn open(path: &Path, key: &KeySource) -> Result<Self> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => damaged(),
            _ => StoreError::ExportFile {
                path: path.to_owned(),
                source,
            },
        };
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let mut magic = [0; MAGIC.len()];
        reader.read_exact(&mut magic).map_err(failed)?;
        if &magic != MAGIC {
            return Err(damaged());
        }
        let header = chunk(&mut reader, MAX_HEADER)?.ok_or_else(damaged)?;
        let mut nonce = [0; NONCE];
        reader.read_exact(&mut nonce).map_err(failed)?;
        let (_, keys) = sealed::unlock(&Header::parse(&header)?, key).await?;
        let cipher = XChaCha20Poly1305::new((&*keys.seal).into());
        let ahead = chunk(&mut reader, MAX_SEGMENT)?;
        Ok(Self {
            reader,
            keys,
            header,
            decryptor: Some(Decryptor::from_aead(cipher, (&nonce).into())),
            ahead,
        })
    }

    /// The rows of the next segment. `None`: the file was whole and is read.
    fn next(&mut self) -> Result<Option<Vec<(Row, Plain)>>> {
        let Some(mut decryptor) = self.decryptor.take() else {
            return Ok(None);
        };
        let sealed = self.ahead.take().ok_or_else(damaged)?;
        let payload = Payload {
            msg: &sealed,
            aad: &self.header,
        };
        self.ahead = chunk(&mut self.reader, MAX_SEGMENT)?;
        let opened = if self.ahead.is_some() {
            let opened = decryptor.decrypt_next(payload).map_err(|_| damaged())?;
            self.decryptor = Some(decryptor);
            opened
        } else {
            decryptor.decrypt_last(payload).map_err(|_| damaged())?
        };
        decode(&Zeroizing::new(opened)).map(Some)
    }
}

/// The next length and as many bytes. `None`: the file ends here.
fn chunk(reader: &mut impl Read, longest: usize) -> Result<Option<Vec<u8>>> {
    let mut length = Vec::with_capacity(4);
    reader.take(4).read_to_end(&mut length).map_err(|_| damaged())?;
    if length.is_empty() {
        return Ok(None);
    }
    let length = <[u8; 4]>::try_from(length).map_err(|_| damaged())?;
    let length = u64::from(u32::from_be_bytes(length));
    if length > longest as u64 {
        return Err(damaged());
    }
    let mut bytes = Vec::new();
    let read = reader.take(length).read_to_end(&mut bytes).map_err(|_| damaged())?;
    if read as u64 == length {
        Ok(Some(bytes))
    } else {
        Err(damaged())
    }
}
