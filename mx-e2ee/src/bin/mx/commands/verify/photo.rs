//! The picture that `--scan` names: it is there when the other side shows its code, and not before.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mx_e2ee::VerificationId;

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// A picture that is waited for.
pub(super) struct Photo {
    path: PathBuf,
    /// Whose code is to be in it, once they show one.
    wanted: Option<VerificationId>,
    /// What was in the file when it was looked at last.
    seen: Option<Vec<u8>>,
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

    /// Whose code, and a picture that was not looked at before. For ever, where nothing is wanted.
    ///
    /// # Cancel safety
    /// Safe: what was not returned is looked at again.
    pub(super) async fn next(&mut self) -> (VerificationId, Vec<u8>) {
        let Some(id) = self.wanted.clone() else {
            return std::future::pending().await;
        };
        loop {
            if let Ok(picture) = tokio::fs::read(&self.path).await
                && self.seen.as_ref() != Some(&picture)
            {
                self.seen = Some(picture.clone());
                return (id, picture);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
