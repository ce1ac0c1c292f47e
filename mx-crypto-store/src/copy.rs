//! A whole store from one engine to another, as it is: sealed, with every row, under the same key.

use crate::{
    Result, StoreError,
    backend::{Backend, Batch},
    layers::PAGE,
    layout::HEADER_ROW,
};

/// Copy the store in `from` into `to`, which is empty, row by row and still sealed: the key that opens the one opens the
/// other. Returns how many rows were copied, after all of them were read back and compared.
///
/// Both must be open exclusively, as the embedded engines are. Afterwards use one of the two and destroy the other: two
/// devices with the same keys would use them twice.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use mx_crypto_store::{KeySource, SealedStore, StoreKey, backend::{Memory, MemoryDisk}};
/// # let (old, new, key) = (MemoryDisk::new(), MemoryDisk::new(), KeySource::Bytes(StoreKey::from_bytes([7; 32])));
/// # SealedStore::open(Arc::new(Memory::open(&old)?), key.clone()).await?.shutdown().await?;
/// // From any engine to any other, such as from `Sled` to `Sqlite`.
/// let (from, to) = (Memory::open(&old)?, Memory::open(&new)?);
/// let rows = mx_crypto_store::copy(&from, &to).await?;
/// println!("{rows} rows: the old ones are to be destroyed now");
/// let store = SealedStore::open_existing(Arc::new(to), key).await?;
/// # drop(store);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`StoreError::Empty`] when there is no store in `from`; [`StoreError::NotEmpty`] when there is one in `to`;
/// [`StoreError::Corrupt`] when what was read back differs; of the engines.
///
/// # Cancel safety
/// Safe to repeat: the header is copied last, and what an earlier attempt left in `to` without one is removed.
pub async fn copy(from: &dyn Backend, to: &dyn Backend) -> Result<u64> {
    let header = from.get(HEADER_ROW).await?.ok_or(StoreError::Empty)?;
    begin_anew(to).await?;
    let mut after = HEADER_ROW.to_vec();
    loop {
        let page = from.scan(&[], Some(&after), PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after.clone_from(last);
        let batch = page
            .into_iter()
            .fold(Batch::new(), |batch, (row, value)| batch.put(row, value));
        to.commit(batch).await?;
    }
    let rows = compare(from, to).await?;
    let whole = Batch::new().expect(HEADER_ROW, None).put(HEADER_ROW, header);
    to.commit(whole.delete(UNFINISHED_ROW)).await?;
    Ok(rows + 1)
}

/// In a place where a store is being made of another one: what is there is half of it, and may be removed. A store that
/// has lost its header has no such row.
pub(crate) const UNFINISHED_ROW: &[u8] = &[0xff];

/// Begin to make a store of another one, after what an earlier attempt left was removed.
pub(crate) async fn begin_anew(backend: &dyn Backend) -> Result<()> {
    let first = backend.scan(&[], None, 1).await?;
    if !first.is_empty() && backend.get(UNFINISHED_ROW).await?.is_none() {
        return Err(StoreError::NotEmpty);
    }
    backend.commit(Batch::new().put(UNFINISHED_ROW, [])).await?;
    loop {
        let mut page = backend.scan(&[], None, PAGE).await?;
        page.retain(|(row, _)| row != UNFINISHED_ROW);
        if page.is_empty() {
            return Ok(());
        }
        let batch = page.into_iter().fold(Batch::new(), |batch, (row, _)| batch.delete(row));
        backend.commit(batch).await?;
    }
}

async fn compare(from: &dyn Backend, to: &dyn Backend) -> Result<u64> {
    let mut after = HEADER_ROW.to_vec();
    let mut rows = 0;
    loop {
        let page = from.scan(&[], Some(&after), PAGE).await?;
        let mut copied = to.scan(&[], Some(&after), PAGE).await?;
        copied.retain(|(row, _)| row != UNFINISHED_ROW);
        if page != copied {
            return Err(StoreError::Corrupt { what: "the copy" });
        }
        let Some((last, _)) = page.last() else {
            return Ok(rows);
        };
        after.clone_from(last);
        rows += u64::try_from(page.len()).unwrap_or(u64::MAX);
    }
}
