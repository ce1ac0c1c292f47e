//! Stores of older schemas, made new: in one commit, so that a crash leaves the old one or the new one.
//!
//! # Schema 1 → 2
//! Schema 1 sealed records under keys made of the key file, bound to schema, store and row; it had no versions and no
//! manifest. Names of rows cannot be turned back, so that an upgraded store keeps how its rows are named (and that key,
//! wrapped as the other one). The whole store is in memory meanwhile. A key file gets a new key, so that records of schema
//! 1 which somebody has copied cannot be put back for another upgrade; with a key of the caller's, rekey after it.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    KeySource, Result, StoreError,
    backend::Backend,
    commit::{change_of, sealed_batch},
    header::{Header, SCHEMA},
    key::{Kdf, Minted, StoreKey},
    layers::{Overlay, PAGE, Plain},
    layout::{self, HEADER_ROW, Table},
    manifest::{Manifest, ROOT_ROW},
    seal::{Keys, Naming, STORE_ID, Sealer},
};

/// Families that are guarded since schema 2: the orchestrator's rooms and its outbox, each in one group.
const GUARDED_SINCE_2: [&str; 2] = ["rooms", "outbox"];

/// Bring a store to the newest schema. Returns its new header.
pub(crate) async fn to_newest(backend: &dyn Backend, source: &KeySource, header: &[u8]) -> Result<Vec<u8>> {
    let (old, key) = Schema1::open(source, header).await?;
    let keys = Keys::with_new_seal(&old.names, Naming::Shared)?;
    // Rows of schema 1 open for ever by the key that they were sealed with. A key file is ours to replace.
    let minted = match source {
        KeySource::File(_) => source.mint_another().await?,
        _ => Minted { key, kdf: Kdf::Raw },
    };
    let new_header = Header::wrap(&old.store_id, 0, &minted.kdf, &minted.key, &keys)?;
    let sealer = Sealer::new(keys, old.store_id)?;
    let mut overlay = Overlay::new();
    let mut after = HEADER_ROW.to_vec();
    loop {
        let page = backend.scan(&[], Some(&after), PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after.clone_from(last);
        for (row, sealed) in page {
            let plain = old.open_record(&row, &sealed)?;
            rewrite(&sealer, &mut overlay, row, plain)?;
        }
    }
    let manifest = Manifest::default();
    let change = change_of(&manifest, &overlay).ok().flatten();
    let root = change.as_ref().map_or(&manifest.root, |change| &change.root);
    let batch = sealed_batch(&sealer, &overlay, change.as_ref())?
        .expect(HEADER_ROW, Some(header.to_vec()))
        .put(HEADER_ROW, new_header.clone())
        .put(ROOT_ROW, sealer.seal(ROOT_ROW, root.counter, &root.encode())?);
    backend.commit(batch).await?;
    tracing::info!(schema = SCHEMA, rows = overlay.len(), "the store was upgraded");
    Ok(new_header)
}

/// Where a record of schema 1 is now.
fn rewrite(sealer: &Sealer, overlay: &mut Overlay, row: Vec<u8>, plain: Plain) -> Result<()> {
    for family in GUARDED_SINCE_2 {
        let before = layout::group(sealer, Table::Record, &[family]);
        if let Some(name) = row.strip_prefix(before.as_slice()) {
            let mut now = layout::group(sealer, Table::GuardedRecord, &[family]);
            now.extend_from_slice(name);
            overlay.insert(now, Some(plain));
            overlay.insert(row, None);
            return Ok(());
        }
    }
    match Table::of(&row) {
        #[cfg(feature = "engine")]
        Some(Table::InboundGroupSession) => {
            if let Some((index, value)) = crate::store::sender_index(sealer, &plain)? {
                overlay.insert(index, Some(Plain::new(Zeroizing::new(value))));
            }
            overlay.insert(row, Some(plain));
        }
        #[cfg(not(feature = "engine"))]
        Some(Table::InboundGroupSession) => {
            return Err(StoreError::Encode {
                what: "the index of room keys, without the feature engine",
            });
        }
        Some(Table::InboundGroupSessionBySender) => {
            overlay.insert(row, None);
        }
        _ => {
            overlay.insert(row, Some(plain));
        }
    }
    Ok(())
}

/// What opens the records of schema 1.
struct Schema1 {
    cipher: XChaCha20Poly1305,
    names: Zeroizing<[u8; 32]>,
    store_id: [u8; STORE_ID],
}

impl Schema1 {
    async fn open(source: &KeySource, header: &[u8]) -> Result<(Self, StoreKey)> {
        let corrupt = || StoreError::Corrupt { what: "its header" };
        // Magic 8, schema 4, store id 16, sealed check, checksum 32.
        let (store_id, rest) = header
            .get(12..)
            .and_then(|rest| rest.split_first_chunk::<STORE_ID>())
            .ok_or_else(corrupt)?;
        let (check, _) = rest.split_last_chunk::<32>().ok_or_else(corrupt)?;
        for key in source.candidates(&Kdf::Raw).await? {
            let old = Self::new(&key, *store_id)?;
            if old.open_record(HEADER_ROW, check).is_ok() {
                return Ok((old, key));
            }
        }
        Err(StoreError::WrongKey)
    }

    fn new(key: &StoreKey, store_id: [u8; STORE_ID]) -> Result<Self> {
        let kdf = Hkdf::<Sha256>::new(Some(&store_id), key.bytes());
        let mut seal = Zeroizing::new([0; 32]);
        let mut names = Zeroizing::new([0; 32]);
        let expanded = kdf
            .expand(b"mx-crypto-store seal", seal.as_mut())
            .and(kdf.expand(b"mx-crypto-store names", names.as_mut()));
        expanded.map_err(|_| StoreError::Encode { what: "keys" })?;
        Ok(Self {
            cipher: XChaCha20Poly1305::new((&*seal).into()),
            names,
            store_id,
        })
    }

    fn open_record(&self, row: &[u8], sealed: &[u8]) -> Result<Plain> {
        let corrupt = || StoreError::Corrupt { what: "a record" };
        let (nonce, ciphertext) = sealed.split_first_chunk::<24>().ok_or_else(corrupt)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &[&1_u32.to_be_bytes()[..], &self.store_id, row].concat(),
        };
        self.cipher
            .decrypt(XNonce::from_slice(nonce), payload)
            .map(|plain| Plain::new(Zeroizing::new(plain)))
            .map_err(|_| corrupt())
    }
}
