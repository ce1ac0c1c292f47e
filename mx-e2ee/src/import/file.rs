//! Files of other clients: only what is a file is opened, and no more of it is read than there is room for.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::Path,
};

use zeroize::Zeroizing;

use super::ImportError;
use crate::Result;

/// Open a file, and nothing that would wait for somebody else or never end.
pub(super) fn open(path: &Path) -> io::Result<File> {
    is_file(&fs::metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        // What it was replaced by since is not waited for, either.
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    let file = options.open(path)?;
    is_file(&file.metadata()?)?;
    Ok(file)
}

fn is_file(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))
    }
}

/// All of a file, which is no larger than this, whatever it says of itself.
pub(super) fn read(path: &Path, most_bytes: u64) -> Result<Zeroizing<Vec<u8>>> {
    let read = || {
        let file = open(path)?;
        let length = file.metadata()?.len().min(most_bytes);
        // A vector that grows leaves what it held where it was.
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1));
        file.take(most_bytes + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| ImportError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > most_bytes {
        return Err(too_large(path).into());
    }
    Ok(bytes)
}

pub(super) fn too_large(path: &Path) -> ImportError {
    ImportError::Foreign {
        path: path.to_owned(),
        what: "it is too large".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"1234").unwrap();
        assert_eq!(*read(&path, 4).unwrap(), b"1234");
        assert_eq!(read(&path, 3).unwrap_err().code(), "import_foreign");
        // It is as long as it says, and takes no place.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&path, 4).unwrap_err().code(), "import_foreign");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path(), 4).unwrap_err().code(), "import_unreadable");
        #[cfg(target_os = "linux")]
        {
            let pipe = directory.path().join("pipe");
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            for waits in [pipe.as_path(), Path::new("/dev/zero")] {
                assert_eq!(read(waits, 4).unwrap_err().code(), "import_unreadable");
            }
        }
    }
}
