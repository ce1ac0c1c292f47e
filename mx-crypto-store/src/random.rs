//! Random bytes of the operating system. There is no weaker source to fall back on.

use crate::{Result, StoreError};

/// `N` random bytes.
///
/// # Errors
/// [`StoreError::Encode`] when the operating system gives none.
pub(crate) fn bytes<const N: usize>(what: &'static str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes, what)?;
    Ok(bytes)
}

/// Fill with random bytes. One long draw costs a fraction of many short ones, each of which enters the kernel.
///
/// # Errors
/// [`StoreError::Encode`] when the operating system gives none.
pub(crate) fn fill(bytes: &mut [u8], what: &'static str) -> Result<()> {
    getrandom::fill(bytes).map_err(|_| StoreError::Encode { what })
}
