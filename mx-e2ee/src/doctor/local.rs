//! The profile on this disk: who else can read it, and how much space there is.

use std::path::Path;

use super::{
    Checkup,
    code::FindingCode,
    finding::{Check, Finding, Findings},
};
use crate::{Error, Result};

pub(super) fn look(directory: &Path, checkup: Checkup, found: &mut Findings) {
    if !directory.is_dir() {
        found.skipped(Check::Profile, "there is no such directory");
        return;
    }
    found.looked(Check::Profile);
    let open = open_to_others(directory);
    if !open.is_empty() {
        let details = open
            .iter()
            .map(|open| format!("{} has mode {:04o}", open.path.display(), open.mode));
        let mut finding = Finding::of(FindingCode::ProfileReadable);
        finding.details = details.collect();
        found.push(finding);
    }
    let Some(free) = free_bytes(directory) else { return };
    found.facts.free_bytes = Some(free);
    if free < checkup.least_free_bytes {
        let detail = format!("{} MiB are free under {}", free >> 20, directory.display());
        found.push(Finding::of(FindingCode::DiskSpace).detail(detail));
    }
}

/// Let nobody but their owner read the profile's secrets, or put others in their place.
pub(super) fn close_to_others(directory: &Path) -> Result<()> {
    for open in open_to_others(directory) {
        close(&open).map_err(|source| Error::File {
            path: open.path,
            source,
        })?;
    }
    Ok(())
}

/// Something that others may do more with than they should.
struct Open {
    path: std::path::PathBuf,
    mode: u32,
    /// What of the mode is too much.
    excess: u32,
}

#[cfg(unix)]
use self::unix::{close, free_bytes, open_to_others};

#[cfg(unix)]
mod unix {
    use std::{
        fs::{self, OpenOptions},
        io,
        os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
        path::{Path, PathBuf},
    };

    use rustix::fs::OFlags;

    use super::Open;

    /// What holds secrets, beside the directory itself.
    const SECRET: [&str; 5] = [
        "session.json",
        "session.json.new",
        "pickle.key",
        "pickle.key.new",
        "store",
    ];
    const OTHERS: u32 = 0o077;
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;

    /// What is a link is none of ours to change; nor is a directory for everybody, in which each has his own.
    pub(super) fn open_to_others(directory: &Path) -> Vec<Open> {
        let mut open = Vec::new();
        let mut look = |path: PathBuf, forbidden: u32| {
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                return;
            };
            let mode = metadata.permissions().mode() & 0o7777;
            let excess = mode & forbidden;
            if !metadata.is_symlink() && excess != 0 && mode & STICKY == 0 {
                open.push(Open { path, mode, excess });
            }
        };
        look(directory.to_owned(), OTHERS_WRITE);
        for name in SECRET {
            look(directory.join(name), OTHERS);
        }
        open
    }

    /// Of what is there now, which whoever may write may have replaced: never through a link, and only what is ours.
    pub(super) fn close(open: &Open) -> io::Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&open.path)?;
        let metadata = file.metadata()?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mode = metadata.permissions().mode() & 0o7777 & !open.excess;
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
        let disk = rustix::fs::statvfs(directory).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

#[cfg(not(unix))]
use self::elsewhere::{close, free_bytes, open_to_others};

/// Access lists are not looked at.
#[cfg(not(unix))]
mod elsewhere {
    use std::{io, path::Path};

    use super::Open;

    pub(super) const fn open_to_others(_: &Path) -> Vec<Open> {
        Vec::new()
    }

    pub(super) const fn close(_: &Open) -> io::Result<()> {
        Ok(())
    }

    pub(super) const fn free_bytes(_: &Path) -> Option<u64> {
        None
    }
}
