//! Room keys in a file that a passphrase protects: Element's key export, out and in.
//!
//! # Why
//! The engine writes and opens such files, and believes what they say: it derives a key with as many rounds as the header
//! names, four billion too, and takes every room key under the name that the file gives it (client-server API, "Key
//! exports"). Here the header is looked at before any work, and what is inside is looked at before any of it is kept.

mod file;

use matrix_sdk_crypto::{KeyExportError, encrypt_room_key_export, olm::ExportedRoomKey};
use ruma::OwnedRoomId;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{Error, Orchestrator, Result, imported::Imported, machine::Ending};

/// A key file that cannot be made or taken. Nothing was changed.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, file: String) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::{Error, KeyFileError};
///
/// match device.import_room_keys(&file, "correct horse battery staple").await {
///     Err(Error::KeyFile(KeyFileError::WrongPassphrase)) => println!("try another passphrase"),
///     taken => println!("{} room keys are new", taken?.imported),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It was made with another passphrase, or changed since. The two cannot be told apart.
    #[error(
        "the passphrase is not the one of this key file, or the file was changed: nothing was taken from it, try the \
         passphrase again or export the keys again"
    )]
    WrongPassphrase,
    /// It is no key file, or one that nobody honest makes.
    #[error("the key file is refused and nothing was taken from it: {reason}; export the keys again")]
    Rejected {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A passphrase is needed.
    #[error("a key file without a passphrase could be read by anybody: give one")]
    NoPassphrase,
}

impl KeyFileError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::WrongPassphrase => "key_file_wrong_passphrase",
            Self::Rejected { .. } => "key_file_rejected",
            Self::NoPassphrase => "key_file_no_passphrase",
        }
    }
}

/// A key file, as it is to be written.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), Box<dyn std::error::Error>> {
/// let file = device.export_room_keys("correct horse battery staple", None).await?;
/// std::fs::write("/mnt/safe/room-keys.txt", &file.text)?;
/// println!("{} room keys", file.room_keys);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyFile {
    /// The file. Whoever has it and guesses the passphrase reads every message of its rooms.
    pub text: String,
    /// How many room keys it holds.
    pub room_keys: usize,
}

/// What became of room keys that came from a file or a backup.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator, file: &str) -> Result<(), mx_olm_orchestrator::Error> {
/// let taken = device.import_room_keys(file, "correct horse battery staple").await?;
/// println!("{} of {} are new, {} cannot be used", taken.imported, taken.total, taken.unusable);
/// println!("{} events that waited were tried again", taken.retried);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RoomKeyImport {
    /// How many there were.
    pub total: usize,
    /// Of them, those that are new here or reach further back than what was here.
    pub imported: usize,
    /// Of them, those that cannot be used: unreadable, of another algorithm, or under another session's name.
    pub unusable: usize,
    /// How many events that waited could be told something about: most of them were decrypted.
    pub retried: usize,
}

impl RoomKeyImport {
    pub(crate) const fn add(&mut self, more: Self) {
        self.total += more.total;
        self.imported += more.imported;
        self.unusable += more.unusable;
        self.retried += more.retried;
    }
}

impl Orchestrator {
    /// The room keys of this device, or of these rooms only, in a file as Element writes and reads them, protected by
    /// `passphrase`. The key is derived on a thread of its own, for about a second.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// // What somebody who joins later may read, and no more.
    /// let rooms = [ruma::owned_room_id!("!alerts:example.org")];
    /// let file = device.export_room_keys("correct horse battery staple", Some(&rooms)).await?;
    /// println!("{} room keys in {} bytes", file.room_keys, file.text.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`KeyFileError::NoPassphrase`]; of the store.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn export_room_keys(&self, passphrase: &str, rooms: Option<&[OwnedRoomId]>) -> Result<KeyFile> {
        let passphrase = given(passphrase)?;
        let rooms = rooms.map(<[_]>::to_vec);
        let keys = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let of_rooms = |room: &_| rooms.as_ref().is_none_or(|rooms| rooms.contains(room));
                    let keys = machine
                        .store()
                        .export_room_keys(|session| of_rooms(&session.room_id().to_owned()))
                        .await?;
                    Ok(Ending::Commit(keys))
                })
            })
            .await?;
        let (room_keys, rounds) = (keys.len(), self.options().key_file_rounds.max(1));
        let text = aside(move || encrypt_room_key_export(&keys, &passphrase, rounds)).await?;
        Ok(KeyFile {
            text: text.map_err(|error| Error::engine(&error))?,
            room_keys,
        })
    }

    /// Take the room keys of a key file: all that can be used, in one unit of work, or none. A key that is here already
    /// and reaches as far back stays. What these keys decrypt is marked as [`Trust::Imported`](crate::Trust::Imported):
    /// whoever made the file could have made them. What waited for them is in the inbox afterwards.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, file: String) -> Result<(), mx_olm_orchestrator::Error> {
    /// let taken = device.import_room_keys(&file, "correct horse battery staple").await?;
    /// // Whose keys these are, nobody can tell: their messages are marked as imported.
    /// println!("{} of {} are new, {} of no use", taken.imported, taken.total, taken.unusable);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`KeyFileError`]; of the store. Nothing is taken then.
    ///
    /// # Cancel safety
    /// The keys are taken as a whole or not at all; what waited for them may have to be tried again
    /// ([`retry_waiting`](Self::retry_waiting)).
    pub async fn import_room_keys(&self, file: &str, passphrase: &str) -> Result<RoomKeyImport> {
        let passphrase = given(passphrase)?;
        let checked = file::checked(file)?;
        let keys = aside(move || opened(&checked, &passphrase).map(Imported::looked_at)).await??;
        self.take_imported(keys).await
    }
}

fn given(passphrase: &str) -> Result<Zeroizing<String>, KeyFileError> {
    if passphrase.is_empty() {
        return Err(KeyFileError::NoPassphrase);
    }
    Ok(Zeroizing::new(passphrase.to_owned()))
}

/// Its MAC is looked at before anything in it.
fn opened(checked: &str, passphrase: &str) -> Result<Vec<ExportedRoomKey>, KeyFileError> {
    matrix_sdk_crypto::decrypt_room_key_export(checked.as_bytes(), passphrase).map_err(|error| match error {
        KeyExportError::InvalidMac => KeyFileError::WrongPassphrase,
        KeyExportError::Json(_) | KeyExportError::InvalidUtf8(_) => KeyFileError::Rejected {
            reason: "what is inside is no list of room keys",
        },
        _ => KeyFileError::Rejected {
            reason: "it is not a key file",
        },
    })
}

/// Work that takes a while, on a thread of its own.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Error::EngineStopped)
}
