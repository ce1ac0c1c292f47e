//! From a plaintext to ciphertext in a file without a name, and back: the engine's encryption, where blocking is allowed.
//!
//! # Why a file without a name
//! An upload that is tried again needs the same bytes, and a plaintext may be too large for memory or readable only once.
//! The ciphertext waits in a file that has no name from the start (or, where the system has no such files, from its first
//! moment): it is gone with the process, however that ends, and there is nothing to clean up. No plaintext is in it.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use matrix_sdk_crypto::{AttachmentDecryptor, AttachmentEncryptor, MediaEncryptionInfo};
use mx_transport::FileSource;

use super::{AttachmentError, Origin};

/// How much is in memory at once, in bytes.
const CHUNK_BYTES: usize = 128 * 1024;

/// A file that is encrypted and waits to be sent.
pub(crate) struct Sealed {
    pub(crate) source: FileSource,
    pub(crate) encryption: MediaEncryptionInfo,
    pub(crate) bytes: u64,
}

/// Work that ends when nobody waits for it any more.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&Wanted) -> Result<T, AttachmentError> + Send + 'static,
) -> Result<T, AttachmentError> {
    struct Waiting(Arc<AtomicBool>);
    impl Drop for Waiting {
        fn drop(&mut self) {
            self.0.store(false, Ordering::Relaxed);
        }
    }
    let wanted = Wanted(Arc::new(AtomicBool::new(true)));
    let _waiting = Waiting(Arc::clone(&wanted.0));
    let done = tokio::task::spawn_blocking(move || work(&wanted)).await;
    done.unwrap_or_else(|_| {
        Err(AttachmentError::Unreadable {
            path: None,
            source: io::Error::other("reading it was given up"),
        })
    })
}

/// Whether somebody still waits.
#[derive(Debug)]
pub(crate) struct Wanted(Arc<AtomicBool>);

/// Encrypt all of it, and not more than `max` bytes.
pub(crate) fn seal(
    origin: Origin,
    directory: &Path,
    max: Option<u64>,
    wanted: &Wanted,
) -> Result<Sealed, AttachmentError> {
    let path = match &origin {
        Origin::Path(path) => Some(path.clone()),
        Origin::Reader(_) => None,
    };
    let unreadable = |source| AttachmentError::Unreadable {
        path: path.clone(),
        source,
    };
    let disk = |source| in_directory(directory, source);
    let mut plaintext: Box<dyn Read> = match origin {
        Origin::Path(path) => {
            let file = File::open(path).map_err(unreadable)?;
            // What a device or a pipe holds is not known before it is read.
            check_size(file.metadata().map_err(unreadable)?.len(), max)?;
            Box::new(file)
        }
        Origin::Reader(reader) => reader,
    };
    let mut ciphertext = tempfile::tempfile_in(directory).map_err(disk)?;
    let mut encryptor = AttachmentEncryptor::new(plaintext.as_mut());
    let mut bytes = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Some(read) = read(&mut encryptor, &mut chunk, wanted).map_err(unreadable)? {
        bytes += read.len() as u64;
        check_size(bytes, max)?;
        ciphertext.write_all(read).map_err(disk)?;
    }
    let encryption = encryptor.finish();
    Ok(Sealed {
        source: FileSource::new(ciphertext).map_err(disk)?,
        encryption,
        bytes,
    })
}

/// Decrypt all of it, after all of it was compared with its hash. It reads the ciphertext twice for that: nothing that
/// might be forged is ever decrypted.
pub(crate) fn open(
    ciphertext: &mut File,
    encryption: impl Fn() -> Result<MediaEncryptionInfo, AttachmentError>,
    plaintext: &mut File,
    directory: &Path,
    wanted: &Wanted,
) -> Result<u64, AttachmentError> {
    pass(ciphertext, encryption()?, &mut io::sink(), directory, wanted)?;
    pass(ciphertext, encryption()?, plaintext, directory, wanted)
}

fn pass(
    ciphertext: &mut File,
    encryption: MediaEncryptionInfo,
    plaintext: &mut dyn Write,
    directory: &Path,
    wanted: &Wanted,
) -> Result<u64, AttachmentError> {
    let disk = |source| in_directory(directory, source);
    // The engine says that the hash is wrong with an error that is not the system's.
    let corrupt = |source: io::Error| match source.raw_os_error() {
        None if source.kind() == io::ErrorKind::Other => AttachmentError::Corrupt,
        _ => in_directory(directory, source),
    };
    ciphertext.rewind().map_err(disk)?;
    let mut decryptor = AttachmentDecryptor::new(ciphertext, encryption).map_err(|_| AttachmentError::Malformed {
        what: "its key or its hash cannot be used",
    })?;
    let mut bytes = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Some(read) = read(&mut decryptor, &mut chunk, wanted).map_err(corrupt)? {
        bytes += read.len() as u64;
        plaintext.write_all(read).map_err(disk)?;
    }
    Ok(bytes)
}

/// The next piece. `None`: it is the end.
fn read<'a>(from: &mut impl Read, chunk: &'a mut [u8], wanted: &Wanted) -> io::Result<Option<&'a [u8]>> {
    if !wanted.0.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let read = loop {
        match from.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    Ok(chunk.get(..read).filter(|read| !read.is_empty()))
}

pub(crate) fn check_size(bytes: u64, max: Option<u64>) -> Result<(), AttachmentError> {
    match max {
        Some(max) if bytes > max => Err(AttachmentError::TooLarge { max }),
        _ => Ok(()),
    }
}

pub(crate) fn in_directory(directory: &Path, source: io::Error) -> AttachmentError {
    AttachmentError::Disk {
        directory: PathBuf::from(directory),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use serde_json::json;

    use super::*;

    fn wanted() -> Wanted {
        Wanted(Arc::new(AtomicBool::new(true)))
    }

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn content(file: &mut File) -> Vec<u8> {
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        content
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    const CIPHERTEXT: &str = "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5\
                              2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6";
    const PLAINTEXT: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
                             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

    /// NIST SP 800-38A, F.5.5, with the hash of its ciphertext.
    fn nist() -> Result<MediaEncryptionInfo, AttachmentError> {
        let info = json!({
            "v": "v2",
            "key": {"kty": "oct", "alg": "A256CTR", "ext": true, "key_ops": ["encrypt", "decrypt"],
                    "k": "YD3rEBXKcb4rc67whX13gR81LAc7YQjXLZgQowkU3_Q"},
            "iv": "8PHy8/T19vf4+fr7/P3+/w",
            "hashes": {"sha256": "ZjExoH6exWoMfQZrvET9Tu+kuul87rJwH1PSFT6C/6U"},
        });
        Ok(serde_json::from_value(info).unwrap())
    }

    #[test]
    fn a_known_ciphertext_opens_and_every_other_one_yields_nothing() {
        let here = std::env::temp_dir();
        let known = unhex(CIPHERTEXT);
        let mut plaintext = file(b"");
        let bytes = open(&mut file(&known), nist, &mut plaintext, &here, &wanted()).unwrap();
        assert_eq!((bytes, content(&mut plaintext)), (64, unhex(PLAINTEXT)));
        let flipped = (0..known.len() * 8).map(|bit| {
            let mut flipped = known.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        });
        let longer = [known.as_slice(), b"x"].concat();
        let others = flipped
            .chain((0..known.len()).map(|length| known[..length].to_vec()))
            .chain([longer]);
        for other in others {
            let mut plaintext = file(b"");
            let error = open(&mut file(&other), nist, &mut plaintext, &here, &wanted()).unwrap_err();
            assert_eq!(error.code(), "attachment_corrupt");
            assert!(content(&mut plaintext).is_empty(), "not a byte of it");
        }
    }

    #[test]
    fn what_is_read_ends_at_the_limit_and_when_nobody_waits() {
        let here = std::env::temp_dir();
        let endless = || Origin::Reader(Box::new(io::repeat(7)));
        let error = seal(endless(), &here, Some(1_000_000), &wanted()).err().unwrap();
        assert_eq!(error.code(), "too_large");
        let nobody = Wanted(Arc::new(AtomicBool::new(false)));
        assert!(seal(endless(), &here, None, &nobody).is_err());
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1] {
            let reader = Origin::Reader(Box::new(Cursor::new(vec![7; size])));
            let sealed = seal(reader, &here, Some(size as u64), &wanted()).unwrap();
            assert_eq!(sealed.bytes, size as u64);
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_from_what_cannot_be_written() {
        let here = tempfile::tempdir().unwrap();
        let missing = here.path().join("missing");
        let error = |origin, directory: &Path| seal(origin, directory, None, &wanted()).err().unwrap();
        let code = |origin, directory: &Path| error(origin, directory).code();
        let words = error(Origin::Path(missing.clone()), here.path()).to_string();
        assert!(words.starts_with(&format!("{missing:?} cannot be read")), "{words}");
        assert_eq!(code(Origin::Path(missing.clone()), here.path()), "file_unreadable");
        assert_eq!(
            code(Origin::Path(here.path().to_owned()), here.path()),
            "file_unreadable"
        );
        assert_eq!(
            code(Origin::Reader(Box::new(io::empty())), &missing),
            "file_not_writable"
        );
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0);
    }
}
