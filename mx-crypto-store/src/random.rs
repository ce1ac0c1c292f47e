//! Random bytes of the operating system. There is no weaker source to fall back on.

use crate::{Result, StoreError};

/// `N` random bytes.
///
/// # Errors
/// [`StoreError::Encode`] when the operating system gives none.
pub(crate) fn bytes<const N: usize>(what: &'static str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Encode { what })?;
    Ok(bytes)
}
