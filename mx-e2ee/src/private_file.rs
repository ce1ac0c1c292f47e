//! Files that hold secrets: for their owner only from birth, whole or not there, and never over another by accident.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Write a file that only its owner reads (mode 0600). When this returns `Ok` it is on the disk; a process that is killed
/// before leaves the file as it was, and perhaps one with `.part` added to its name.
///
/// ```
/// use mx_e2ee::write_private_file;
///
/// # let directory = tempfile::tempdir()?;
/// let file = directory.path().join("recovery.key");
/// write_private_file(&file, b"EsTc", false)?;
/// assert_eq!(write_private_file(&file, b"another", false).unwrap_err().code(), "file_exists");
/// write_private_file(&file, b"another", true)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::FileExists`], unless it is to be replaced; [`Error::File`].
pub fn write_private_file(path: impl AsRef<Path>, contents: &[u8], replace: bool) -> Result<()> {
    let path = path.as_ref();
    match write(path, contents, replace) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::FileExists { path: path.to_owned() }),
        written => written.map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write(path: &Path, contents: &[u8], replace: bool) -> io::Result<()> {
    // A link that leads nowhere is something, too.
    if !replace && fs::symlink_metadata(path).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    // What an earlier attempt left; a link is removed and not followed.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    let placed = file
        .write_all(contents)
        .and_then(|()| file.sync_all())
        .and_then(|()| place(&part, path, replace));
    if placed.is_err() {
        // It holds secrets, and is of no use.
        let _gone = fs::remove_file(&part);
    }
    placed
}

fn place(part: &Path, path: &Path, replace: bool) -> io::Result<()> {
    if replace {
        fs::rename(part, path)?;
    } else {
        // A link does not replace what came in between.
        fs::hard_link(part, path)?;
        fs::remove_file(part)?;
    }
    #[cfg(unix)]
    {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_for_its_owner_and_replaced_on_purpose_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        write_private_file(&path, b"one", false).unwrap();
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
        let refused = write_private_file(&path, b"two", false).unwrap_err();
        assert_eq!(refused.code(), "file_exists");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_private_file(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing else is left: {left:?}");
        let nowhere = directory.path().join("no").join("keys");
        assert_eq!(
            write_private_file(nowhere, b"x", false).unwrap_err().code(),
            "file_not_writable"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (directory.path().join("keys"), directory.path().join("elsewhere"));
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        write_private_file(&path, b"x", false).unwrap_err();
        write_private_file(&path, b"x", true).unwrap();
        assert!(!elsewhere.exists());
    }
}
