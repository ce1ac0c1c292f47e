//! How large the files get when the same rows are written again and again.

use std::{fs, path::Path};

use super::{
    reads::filled,
    variant::{Home, Variant},
};

const ROWS: usize = 100;

/// Bytes on the disk after so many overwrites of a hundred values of 1 KB, each durable by itself: while the store is
/// open, and after it was closed.
pub(crate) async fn after_overwrites(variant: Variant, overwrites: usize) -> anyhow::Result<(u64, u64)> {
    let home = Home::new()?;
    let store = filled(variant, &home, &[]).await?;
    for number in 0..overwrites {
        let mut value = vec![0; 1024];
        // No engine gets to write the same bytes again.
        for (to, from) in value.iter_mut().zip(number.to_be_bytes()) {
            *to = from;
        }
        store
            .engine
            .set_custom_value(&format!("row{}", number % ROWS), value)
            .await?;
    }
    let open = bytes(home.directory.path())?;
    store.close().await?;
    Ok((open, bytes(home.directory.path())?))
}

fn bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            bytes(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(total)
}
