//! The picture that `--scan` names: it is there when the other side shows its code, and not before.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use mx_e2ee::VerificationId;

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// What is in the file, or why it cannot be read.
pub(super) type Found = Result<Vec<u8>, ErrorKind>;

/// A picture that is waited for.
pub(super) struct Photo {
    path: PathBuf,
    /// Whose code is to be in it, once they show one.
    wanted: Option<VerificationId>,
    /// What was there when it was looked at last.
    seen: Option<Found>,
}

impl Photo {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            wanted: None,
            seen: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on it is looked for.
    pub(super) fn want(&mut self, id: VerificationId) {
        self.wanted = Some(id);
    }

    pub(super) fn done(&mut self) {
        self.wanted = None;
    }

    /// Whose code, and what was not there before. For ever, where nothing is wanted.
    ///
    /// # Cancel safety
    /// Safe: what was not returned is looked at again.
    pub(super) async fn next(&mut self) -> (VerificationId, Found) {
        let Some(id) = self.wanted.clone() else {
            return std::future::pending().await;
        };
        loop {
            let found = tokio::fs::read(&self.path).await.map_err(|error| error.kind());
            if found != Err(ErrorKind::NotFound) && self.seen.as_ref() != Some(&found) {
                self.seen = Some(found.clone());
                return (id, found);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
