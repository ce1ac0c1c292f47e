//! The manifest that counts now: the one that was given, or what its file says at this moment.
//!
//! # Why
//! A bot runs for years, and who may read changes meanwhile. So a file is read before each send and with each sync, and
//! not once. One that cannot be read is not taken for what it said before: that may be what was just taken out of it.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::Mutex;

use super::{Manifest, ManifestError, TrustManifest};
use crate::{Orchestrator, Result, key_export::aside};

/// A larger file is none.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Where a manifest is, and what it means that there is no such file.
///
/// ```
/// use mx_olm_orchestrator::{ManifestFile, Options};
///
/// let mut options = Options::default();
/// // A deployment that always has one: a file that is gone stops sends and syncs.
/// options.trust_manifest_file = Some(ManifestFile::new("/etc/mybot/trust.json"));
/// assert!(!options.trust_manifest_file.is_some_and(|file| file.may_be_missing));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestFile {
    /// The file.
    pub path: PathBuf,
    /// Whether no file means no manifest. Else it is an error.
    pub may_be_missing: bool,
}

impl ManifestFile {
    /// A file that has to be there.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            may_be_missing: false,
        }
    }

    /// A file without which there is no manifest.
    #[must_use]
    pub fn if_any(path: impl Into<PathBuf>) -> Self {
        Self {
            may_be_missing: true,
            ..Self::new(path)
        }
    }

    /// What it says now. `None`: there is no such file, and may be none.
    ///
    /// ```
    /// use mx_olm_orchestrator::ManifestFile;
    ///
    /// let path = "no/such/file.json";
    /// assert!(ManifestFile::if_any(path).load()?.is_none());
    /// assert_eq!(ManifestFile::new(path).load().unwrap_err().code(), "trust_manifest_unreadable");
    /// # Ok::<_, mx_olm_orchestrator::ManifestError>(())
    /// ```
    ///
    /// # Errors
    /// [`ManifestError::Unreadable`], also of more than 64 MiB; [`ManifestError::Invalid`].
    pub fn load(&self) -> Result<Option<TrustManifest>, ManifestError> {
        self.read()?.map(|bytes| self.parsed(&bytes)).transpose()
    }

    fn read(&self) -> Result<Option<Vec<u8>>, ManifestError> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > MOST_BYTES => Err(self.unreadable(io::ErrorKind::FileTooLarge.into())),
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.may_be_missing => Ok(None),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    fn unreadable(&self, source: io::Error) -> ManifestError {
        ManifestError::Unreadable {
            path: self.path.clone(),
            source,
        }
    }

    fn parsed(&self, bytes: &[u8]) -> Result<TrustManifest, ManifestError> {
        let invalid = |reason: String| ManifestError::Invalid {
            reason: format!("{}: {reason}", self.path.display()),
        };
        let text = std::str::from_utf8(bytes).map_err(|error| invalid(error.to_string()))?;
        TrustManifest::parse(text).map_err(|error| match error {
            ManifestError::Invalid { reason } => invalid(reason),
            error => error,
        })
    }
}

/// What a file said when it was read last, and what that meant.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Option<Said>>);

#[derive(Debug)]
struct Said {
    bytes: Option<Vec<u8>>,
    manifest: Manifest,
}

impl Orchestrator {
    /// The manifest that counts now. One that is new has been held against everybody who is known when this returns.
    ///
    /// It asks for the machine, and is therefore never called in a unit of work.
    pub(crate) async fn manifest(&self) -> Result<Manifest> {
        let Some(file) = self.options().trust_manifest_file.clone() else {
            return Ok(self.options().trust_manifest.clone());
        };
        let mut kept = self.kept_manifest().0.lock().await;
        let (file, bytes) = aside(move || {
            let bytes = file.read();
            (file, bytes)
        })
        .await?;
        let bytes = bytes?;
        if let Some(said) = kept.as_ref().filter(|said| said.bytes == bytes) {
            return Ok(said.manifest.clone());
        }
        let parsed = bytes.as_deref().map(|bytes| file.parsed(bytes)).transpose()?;
        let manifest: Manifest = parsed.map(Arc::new);
        self.apply_trust_manifest(manifest.clone()).await?;
        self.decided();
        if kept.is_some() {
            tracing::info!(path = %file.path.display(), "the trust manifest has changed");
        }
        *kept = Some(Said {
            bytes,
            manifest: manifest.clone(),
        });
        Ok(manifest)
    }

    /// At the start: the manifest may be another one than last time.
    pub(crate) async fn begin_with_manifest(&self) -> Result<()> {
        if self.options().trust_manifest_file.is_some() {
            self.manifest().await?;
            return Ok(());
        }
        let manifest = self.options().trust_manifest.clone();
        if manifest.is_none() && self.options().trust_manifest_unreadable {
            return Ok(());
        }
        self.apply_trust_manifest(manifest).await
    }
}
