//! A whole store as one encrypted file, and a store from such a file.
//!
//! ```text
//! "mxexport" ‖ length 4 ‖ header ‖ nonce 19 ‖ (length 4 ‖ segment)*
//! ```
//! The header is that of a store and wraps the keys of the file under a key or a passphrase. The segments are the STREAM
//! construction (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse
//! Misuse-Resistance", 2015) over XChaCha20-Poly1305 of RustCrypto's `aead`: one that is missing, moved, cut off or from
//! another file does not open, and nothing of a segment is read before it did. The file is bound to its header.

mod read;
mod write;

use chacha20poly1305::{XChaCha20Poly1305, aead::stream};

use crate::{Result, StoreError, layers::Plain, layout::Row};

const MAGIC: &[u8; 8] = b"mxexport";
/// What STREAM leaves of the 24 bytes of a nonce.
const NONCE: usize = 19;
/// Rows are put together until they are this long, in bytes.
const SEGMENT: usize = 64 * 1024;
/// The longest segment that is read: one row may be long.
const MAX_SEGMENT: usize = 256 * 1024 * 1024;
/// The longest header that is read.
const MAX_HEADER: usize = 4096;

type Encryptor = stream::EncryptorBE32<XChaCha20Poly1305>;
type Decryptor = stream::DecryptorBE32<XChaCha20Poly1305>;

const fn damaged() -> StoreError {
    StoreError::Corrupt {
        what: "the exported file",
    }
}

/// Put a row at the end of a segment.
fn encode(segment: &mut Vec<u8>, row: &[u8], value: &[u8]) -> Result<()> {
    let too_long = |_| StoreError::Encode { what: "a row" };
    segment.extend_from_slice(&u16::try_from(row.len()).map_err(too_long)?.to_be_bytes());
    segment.extend_from_slice(&u32::try_from(value.len()).map_err(too_long)?.to_be_bytes());
    segment.extend_from_slice(row);
    segment.extend_from_slice(value);
    Ok(())
}

/// The rows of a segment.
fn decode(mut segment: &[u8]) -> Result<Vec<(Row, Plain)>> {
    let mut rows = Vec::new();
    while !segment.is_empty() {
        let (row_length, rest) = segment.split_first_chunk::<2>().ok_or_else(damaged)?;
        let (value_length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let row_length = usize::from(u16::from_be_bytes(*row_length));
        let value_length = usize::try_from(u32::from_be_bytes(*value_length)).map_err(|_| damaged())?;
        let (row, rest) = rest.split_at_checked(row_length).ok_or_else(damaged)?;
        let (value, rest) = rest.split_at_checked(value_length).ok_or_else(damaged)?;
        rows.push((row.to_vec(), Plain::new(zeroize::Zeroizing::new(value.to_vec()))));
        segment = rest;
    }
    Ok(rows)
}
