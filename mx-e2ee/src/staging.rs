//! A directory that is filled beside the one that it is for, and given its name in one step.
//!
//! # Why
//! A process that is killed before leaves nothing that could be used by accident: no store without its login, no login
//! without what protects it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use crate::{Error, ImportError, Result, session};

/// Says in a directory that it is on its way, and where it belongs. Locked by who fills it.
const MARK: &str = "importing.lock";

/// A directory on its way. Removed when it is dropped without its name: it holds secrets, and is of no use.
#[derive(Debug)]
pub(crate) struct Staging {
    path: PathBuf,
    /// Where it belongs.
    directory: PathBuf,
    is_named: bool,
    /// Let go with this.
    _mark: File,
}

impl Staging {
    /// A place beside `directory`, which must be missing or empty, or hold a device that left it. What an earlier attempt
    /// left is removed.
    pub(crate) fn beside(directory: &Path) -> Result<Self> {
        let directory = as_named(directory)?;
        refuse_used(&directory)?;
        let path = named_as(&directory, ".importing");
        remove_left(&path)?;
        session::create_directory(&path)?;
        let marked = || {
            let mut mark = File::create_new(path.join(MARK))?;
            mark.try_lock().map_err(io::Error::from)?;
            mark.write_all(absolute(&directory).as_bytes())?;
            mark.sync_all()?;
            Ok(mark)
        };
        let mark = marked().map_err(|error| not_kept(&path, error))?;
        Ok(Self {
            path,
            directory,
            is_named: false,
            _mark: mark,
        })
    }

    /// Whether one for `directory` was begun and did not come to its end.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_left(directory: &Path) -> bool {
        as_named(directory).is_ok_and(|directory| named_as(&directory, ".importing").join(MARK).exists())
    }

    /// It has its name, also where something failed after that.
    #[cfg(feature = "sqlite")]
    pub(crate) const fn is_named(&self) -> bool {
        self.is_named
    }

    /// Where to put what belongs into the directory. It is made by who does.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole directory, in one step. Everything in it is on the disk. What is left of a device that left goes aside,
    /// beside it.
    pub(crate) fn give_its_name(&mut self) -> Result<()> {
        let mut named = || {
            File::open(&self.path)?.sync_all()?;
            put_aside(&self.directory)?;
            // An empty directory is replaced by one, in this step too.
            #[cfg(not(unix))]
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::rename(&self.path, &self.directory)?;
            self.is_named = true;
            let parent = self.directory.parent();
            let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
            fs::remove_file(self.directory.join(MARK))
        };
        named().map_err(|error| not_kept(&self.directory, error))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.is_named {
            return;
        }
        if let Err(error) = remove_all(&self.path) {
            tracing::warn!(directory = %self.path.display(), %error, "half of a device is left: remove it by hand");
        }
    }
}

/// Refuse a directory that was filled for another place and has not got there. One that has, and whose mark is left, loses it.
pub(crate) fn refuse_unnamed(directory: &Path) -> Result<()> {
    let mark = directory.join(MARK);
    let belongs = match fs::read_to_string(&mark) {
        Ok(belongs) => belongs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(not_kept(&mark, error)),
    };
    if belongs == absolute(directory) {
        return fs::remove_file(&mark).map_err(|error| not_kept(&mark, error));
    }
    Err(Error::Configuration {
        what: format!(
            "{} holds a device on its way to {belongs}: it does not run here",
            directory.display()
        ),
    })
}

/// What an earlier attempt left goes. What is not marked as such is somebody's, and what is locked is being filled.
fn remove_left(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let locked = match File::open(path.join(MARK)) {
        Ok(mark) => mark.try_lock().map_err(io::Error::from).map(|()| mark),
        // What the thread of a call that was dropped made after that.
        Err(_) if holds_a_store_alone(path) => return remove_all(path).map_err(|error| not_kept(path, error)),
        Err(_) => {
            return Err(ImportError::NotEmpty {
                directory: path.to_owned(),
            }
            .into());
        }
    };
    let _mark = locked.map_err(|error| not_kept(path, error))?;
    remove_all(path).map_err(|error| not_kept(path, error))
}

/// Without a key and a login nobody can use it.
fn holds_a_store_alone(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|children| {
        children
            .map(|child| child.map(|child| child.file_name()))
            .all(|name| name.is_ok_and(|name| name == "store"))
    })
}

/// All of it, and the mark last. A thread of a call that was dropped may still write into it, for a moment.
fn remove_all(path: &Path) -> io::Result<()> {
    const ATTEMPTS: usize = 20;
    let mut tried = remove_once(path);
    for _ in 1..ATTEMPTS {
        if tried.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        tried = remove_once(path);
    }
    if tried.is_err() {
        // The next attempt is to know what it is.
        File::create(path.join(MARK))?;
    }
    tried
}

fn remove_once(path: &Path) -> io::Result<()> {
    for child in fs::read_dir(path)? {
        let child = child?;
        if child.file_name() == MARK {
            continue;
        }
        if child.file_type()?.is_dir() {
            fs::remove_dir_all(child.path())?;
        } else {
            fs::remove_file(child.path())?;
        }
    }
    match fs::remove_file(path.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_dir(path)
}

fn absolute(directory: &Path) -> String {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let plain: PathBuf = absolute.components().collect();
    plain.display().to_string()
}

/// The directory without dots and slashes at its end. A link and the root of a disk cannot be given their name in one step.
fn as_named(directory: &Path) -> Result<PathBuf> {
    let plain: PathBuf = directory.components().collect();
    let is_name = matches!(plain.components().next_back(), Some(Component::Normal(_)));
    if !is_name || plain.is_symlink() || is_mounted(&plain) {
        return Err(Error::Configuration {
            what: format!(
                "a device cannot be put into {}: give a directory inside it",
                directory.display()
            ),
        });
    }
    Ok(plain)
}

/// Whether it is the root of a disk.
#[cfg(unix)]
fn is_mounted(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let disk = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let here = disk(directory);
    here.is_some() && here != disk(parent.unwrap_or_else(|| Path::new(".")))
}

#[cfg(not(unix))]
const fn is_mounted(_: &Path) -> bool {
    false
}

/// A directory that holds something is not a place for a device, unless that is one that left it.
fn refuse_used(directory: &Path) -> Result<()> {
    let is_empty = match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(not_kept(directory, error)),
    };
    if is_empty || has_left(directory) {
        return Ok(());
    }
    Err(ImportError::NotEmpty {
        directory: directory.to_owned(),
    }
    .into())
}

fn has_left(directory: &Path) -> bool {
    matches!(session::find(directory), Ok(Some((_, session::Kept::Left(_)))))
}

/// The directory of a device that left, under another name.
fn put_aside(directory: &Path) -> io::Result<()> {
    if !has_left(directory) {
        return Ok(());
    }
    for number in 0..1000 {
        let aside = named_as(directory, &format!(".moved-{number}"));
        if !aside.exists() {
            tracing::info!(directory = %aside.display(), "what a device left here is put aside");
            return fs::rename(directory, aside);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn named_as(directory: &Path, end: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(end);
    directory.with_file_name(name)
}

fn not_kept(path: &Path, source: io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        source,
    }
}
