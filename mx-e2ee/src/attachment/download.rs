//! Receiving a file: fetch it, compare it with its hash, decrypt it, and only then give it its name.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use mx_transport::{FileSink, Homeserver, RequestError, TransportErrorKind};
use tempfile::NamedTempFile;

use super::{AttachmentError, ReceivedFile, name, seal};
use crate::{Client, Result};

/// No file is larger than this unless the caller allows it, in bytes.
const MAX_BYTES: u64 = 1 << 30;
/// So many files of one name are kept side by side.
const MOST_ALIKE: u32 = 10_000;

/// What fetches files. It needs a login and no store: a client gives it, and so does a
/// [`ClientBuilder`](crate::ClientBuilder::files) while another process uses the store.
///
/// ```no_run
/// # async fn example(message: mx_e2ee::Message) -> mx_e2ee::Result<()> {
/// use mx_e2ee::{Client, ReceivedFile};
///
/// // Beside a process that has the store open.
/// let files = Client::builder().directory("/var/lib/mybot").files().await?.max_bytes(10 << 20);
/// if let Some(file) = ReceivedFile::of(&message)? {
///     println!("{}", files.download_into(&file, "/var/lib/mybot/files").await?.display());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Files {
    homeserver: Homeserver,
    max_bytes: u64,
}

impl Client {
    /// What fetches files.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, file: mx_e2ee::ReceivedFile) -> mx_e2ee::Result<()> {
    /// // Nothing of more than 10 MiB, whatever its sender says.
    /// let files = client.files().max_bytes(10 << 20);
    /// match files.download_into(&file, "/var/lib/mybot/files").await {
    ///     Err(error) if error.code() == "too_large" => println!("{} is not fetched", file.safe_name()),
    ///     path => println!("{}", path?.display()),
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(self.homeserver().clone())
    }

    /// Fetch a file, decrypt it, and keep it under this path. As [`Files::download`].
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, file: mx_e2ee::ReceivedFile) -> mx_e2ee::Result<()> {
    /// match client.download(&file, "/var/lib/mybot/config.toml").await {
    ///     Ok(bytes) => println!("{bytes} bytes"),
    ///     Err(error) if error.code() == "file_exists" => println!("there is one, and it stays"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Files::download`].
    ///
    /// # Cancel safety
    /// As [`Files::download`].
    pub async fn download(&self, file: &ReceivedFile, path: impl AsRef<Path>) -> Result<u64> {
        self.files().download(file, path).await
    }
}

impl Files {
    pub(crate) const fn new(homeserver: Homeserver) -> Self {
        Self {
            homeserver,
            max_bytes: MAX_BYTES,
        }
    }

    /// How large a file may be, in bytes. Default: 1 GiB.
    #[must_use]
    pub const fn max_bytes(mut self, max: u64) -> Self {
        self.max_bytes = max;
        self
    }

    /// Fetch a file, decrypt it, and keep it under this path, for its owner only. Its size in bytes.
    ///
    /// All of it is compared with its hash before any of it is decrypted, and it gets its name when it is whole and on the
    /// disk. In between it needs twice its size beside the path. Memory does not grow with it.
    ///
    /// ```no_run
    /// # async fn example(files: mx_e2ee::Files, file: mx_e2ee::ReceivedFile) -> mx_e2ee::Result<()> {
    /// match files.download(&file, "/var/lib/mybot/report.pdf").await {
    ///     Ok(bytes) => println!("{bytes} bytes, as they were sent"),
    ///     Err(error) if error.code() == "attachment_corrupt" => println!("the homeserver gave something else: {error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `attachment_corrupt` when the homeserver gives something else than what was sent, `too_large`, `file_exists` when
    /// there is something under the path, `file_not_writable`; of the request. There is nothing under the path then that
    /// was not there before.
    ///
    /// # Cancel safety
    /// Safe: there is nothing under the path, or the whole file where this was dropped at its very end. A process that is
    /// killed while it decrypts may leave a file `.mx-….part` beside it.
    pub async fn download(&self, file: &ReceivedFile, path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        if path.file_name().is_none() {
            return Err(AttachmentError::NoName { path: path.to_owned() }.into());
        }
        if path.symlink_metadata().is_ok() {
            return Err(AttachmentError::Exists { path: path.to_owned() }.into());
        }
        let directory = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let (plaintext, bytes) = self.fetch(file, directory).await?;
        let path = path.to_owned();
        seal::blocking(move |_| match place(plaintext, &path)? {
            None => Ok(()),
            Some(_) => Err(AttachmentError::Exists { path }),
        })
        .await?;
        Ok(bytes)
    }

    /// Fetch a file, decrypt it, and keep it in this directory under a name like the one that its sender gave it:
    /// [`safe_name`](ReceivedFile::safe_name), or with a number where there is one of that name. Its path.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    ///
    /// # Cancel safety
    /// As [`download`](Self::download).
    pub async fn download_into(&self, file: &ReceivedFile, directory: impl AsRef<Path>) -> Result<PathBuf> {
        let directory = directory.as_ref().to_owned();
        let (mut plaintext, _) = self.fetch(file, &directory).await?;
        let name = file.safe_name();
        let placed = seal::blocking(move |_| {
            for number in 0..MOST_ALIKE {
                let path = directory.join(name::numbered(&name, number));
                match place(plaintext, &path)? {
                    None => return Ok(path),
                    Some(taken) => plaintext = taken,
                }
            }
            Err(AttachmentError::Exists {
                path: directory.join(name),
            })
        })
        .await?;
        Ok(placed)
    }

    /// The plaintext, whole and on the disk, in a file of the directory that nobody has named yet; its size in bytes.
    async fn fetch(&self, file: &ReceivedFile, directory: &Path) -> Result<(NamedTempFile, u64)> {
        // What the sender says is no proof, and saves a fetch that would be refused.
        seal::check_size(file.bytes.unwrap_or_default(), Some(self.max_bytes))?;
        let disk = |source| seal::in_directory(directory, source);
        let mut ciphertext = tempfile::tempfile_in(directory).map_err(disk)?;
        let mut sink = FileSink::new(ciphertext.try_clone().map_err(disk)?, self.max_bytes);
        match self.homeserver.download(file.url(), &mut sink).await {
            Err(RequestError::Transport(error)) if error.kind() == TransportErrorKind::BodyTooLarge => {
                return Err(AttachmentError::TooLarge { max: self.max_bytes }.into());
            }
            fetched => fetched?,
        }
        let (file, directory) = (file.clone(), directory.to_owned());
        let opened = seal::blocking(move |wanted| {
            let disk = |source| seal::in_directory(&directory, source);
            let mut plaintext = tempfile::Builder::new()
                .prefix(".mx-")
                .suffix(".part")
                .tempfile_in(&directory)
                .map_err(disk)?;
            let encryption = || file.encryption();
            let bytes = seal::open(&mut ciphertext, encryption, plaintext.as_file_mut(), &directory, wanted)?;
            plaintext.as_file().sync_all().map_err(disk)?;
            Ok((plaintext, bytes))
        })
        .await?;
        Ok(opened)
    }
}

/// Give the file its name, if nothing has it: else the file comes back.
fn place(plaintext: NamedTempFile, path: &Path) -> Result<Option<NamedTempFile>, AttachmentError> {
    let directory = path
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(Path::new("."));
    match plaintext.persist_noclobber(path) {
        Ok(_) => {
            #[cfg(unix)]
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(|source| seal::in_directory(directory, source))?;
            Ok(None)
        }
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => Ok(Some(taken.file)),
        Err(failed) => Err(seal::in_directory(directory, failed.error)),
    }
}
