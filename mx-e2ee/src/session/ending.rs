//! What becomes of the files of a login that was ended: put aside, or destroyed.
//!
//! # Why nothing is overwritten
//! On today's disks and file systems, writing zeros into a file says nothing about where its old content was. What is
//! destroyed is unlinked: the key first and durably, without which the rest cannot be read, then the rest. Only a disk
//! that is encrypted as a whole can promise more.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use ruma::DeviceId;

use super::{FILE, LOCK, Session, create_directory};
use crate::{Error, Result};

const ASIDE: &str = "logged-out";
const STORE: &str = "store";
/// The key of a store, also one that has not got its name yet.
const KEYS: [&str; 2] = ["pickle.key", "pickle.key.new"];

/// Forget a login that was ended, and put its store aside with its key: a new login starts with an empty one, and nothing
/// is destroyed. The login goes last: whatever comes between, it can be ended again.
pub(crate) fn forget(directory: &Path, session: &Session) -> Result<()> {
    put_store_aside(directory, &session.device_id)?;
    let ended = |source| Error::SessionFile {
        path: directory.join(FILE),
        source,
    };
    unlink(&directory.join(format!("{FILE}.new"))).map_err(ended)?;
    unlink(&directory.join(FILE)).map_err(ended)?;
    sync(directory).map_err(ended)
}

fn put_store_aside(directory: &Path, device: &DeviceId) -> Result<()> {
    let name: String = device
        .as_str()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(64)
        .collect();
    let failed = |source| Error::SessionFile {
        path: directory.join(ASIDE),
        source,
    };
    for number in 0.. {
        let aside = directory.join(ASIDE).join(format!("{name}.{number}"));
        if aside.exists() {
            continue;
        }
        create_directory(&aside)?;
        for part in [&[STORE][..], &KEYS].concat() {
            match fs::rename(directory.join(part), aside.join(part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        break;
    }
    Ok(())
}

/// Destroy what a login that was ended leaves in its directory, and what earlier logouts put aside there: keys, then
/// stores, then the login, so that it can be ended again until all the rest is gone.
pub(crate) fn destroy(directory: &Path) -> Result<()> {
    destroyed(directory, true, &mut |_| Ok(())).map(|_| ())
}

/// The same for what earlier logouts put aside, where there is no login. Whether there was anything.
pub(crate) fn destroy_aside(directory: &Path) -> Result<bool> {
    destroyed(directory, false, &mut |_| Ok(()))
}

/// `step` is asked before each file goes, with its path. Whether there was anything.
fn destroyed(directory: &Path, with_login: bool, step: &mut dyn FnMut(&Path) -> io::Result<()>) -> Result<bool> {
    in_order(directory, with_login, step).map_err(|source| Error::SessionFile {
        path: directory.to_owned(),
        source,
    })
}

fn in_order(directory: &Path, with_login: bool, step: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<bool> {
    let aside = directory.join(ASIDE);
    let mut homes = children(&aside)?;
    if with_login {
        homes.push(directory.to_owned());
    }
    for home in &homes {
        let mut any = false;
        for key in KEYS.map(|key| home.join(key)) {
            any |= remove(&key, step)?;
        }
        if any {
            sync(home)?;
        }
    }
    let mut any = remove(&aside, step)?;
    if with_login {
        any |= remove(&directory.join(STORE), step)?;
        sync(directory)?;
        for file in [&format!("{FILE}.new"), LOCK, FILE] {
            any |= remove(&directory.join(file), step)?;
        }
    }
    if any {
        sync(directory)?;
    }
    Ok(any)
}

/// Remove a file, or a directory with all that is in it. Links are removed, and not followed.
fn remove(path: &Path, step: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<bool> {
    let what = match fs::symlink_metadata(path) {
        Ok(what) => what,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    if what.is_dir() {
        for child in children(path)? {
            remove(&child, step)?;
        }
        step(path)?;
        fs::remove_dir(path)?;
    } else {
        step(path)?;
        unlink(path)?;
    }
    Ok(true)
}

/// What is in a directory, in order; nothing where there is none.
fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut children = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    children.sort();
    Ok(children)
}

fn unlink(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What was unlinked in a directory stays so when the power goes.
fn sync(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _directory: (Option<File>, &Path) = (None, directory);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A login with its store, and one that was put aside.
    fn profile() -> tempfile::TempDir {
        let profile = tempfile::tempdir().unwrap();
        let aside = profile.path().join(ASIDE).join("OLD.0");
        fs::create_dir_all(aside.join(STORE)).unwrap();
        fs::create_dir_all(profile.path().join(STORE)).unwrap();
        for home in [profile.path(), &aside] {
            for file in ["pickle.key", "store/database", "store/database-wal"] {
                fs::write(home.join(file), "x").unwrap();
            }
        }
        for file in [
            "session.json",
            "session.json.new",
            "session.lock",
            "pickle.key.new",
            "mine",
        ] {
            fs::write(profile.path().join(file), "x").unwrap();
        }
        profile
    }

    fn names(directory: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        children(directory).unwrap().iter().map(name).collect()
    }

    /// Stopped before the n-th file goes.
    fn stopped_before(profile: &Path, nth: usize) -> bool {
        let mut steps = 0;
        let ended = destroyed(profile, true, &mut |_| {
            steps += 1;
            if steps == nth {
                return Err(io::Error::other("stopped"));
            }
            Ok(())
        });
        ended.is_err()
    }

    #[test]
    fn st_47_what_is_destroyed_is_destroyed_in_order_and_whatever_stops_it_it_goes_on() {
        for nth in 1.. {
            let profile = profile();
            let stopped = stopped_before(profile.path(), nth);
            if stopped {
                let left = |part: &str| profile.path().join(part).exists();
                assert!(left("session.json"), "{nth}: the login goes last");
                let stores = [
                    "store/database",
                    "store/database-wal",
                    "logged-out/OLD.0/store/database",
                ];
                let keys = ["pickle.key", "pickle.key.new", "logged-out/OLD.0/pickle.key"];
                let a_key_is_left = keys.into_iter().any(left);
                assert!(!a_key_is_left || stores.into_iter().all(left), "{nth}: keys go first");
                // The same again.
                destroy(profile.path()).unwrap();
            }
            assert_eq!(names(profile.path()), ["mine"], "{nth}: what is not ours stays");
            if !stopped {
                assert_eq!(nth, 15, "every step was stopped");
                return;
            }
        }
    }

    #[test]
    fn st_47_without_a_login_only_what_was_put_aside_is_destroyed() {
        let profile = profile();
        assert!(destroy_aside(profile.path()).unwrap());
        let mut left = names(profile.path());
        left.retain(|name| name != "mine");
        let expected = [
            "pickle.key",
            "pickle.key.new",
            "session.json",
            "session.json.new",
            "session.lock",
            "store",
        ];
        assert_eq!(left, expected);
        assert!(!destroy_aside(profile.path()).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn st_47_a_link_is_not_followed() {
        let profile = profile();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), profile.path().join("store").join("link")).unwrap();
        destroy(profile.path()).unwrap();
        assert_eq!(names(elsewhere.path()), ["precious"]);
    }

    #[test]
    fn what_is_forgotten_is_put_aside() {
        let profile = profile();
        let session = Session {
            homeserver: "https://hs.test".to_owned(),
            user_id: ruma::user_id!("@a:hs.test").to_owned(),
            device_id: "NEW".into(),
        };
        forget(profile.path(), &session).unwrap();
        assert_eq!(names(&profile.path().join(ASIDE)), ["NEW.0", "OLD.0"]);
        assert!(profile.path().join("logged-out/NEW.0/store/database").exists());
        let token_is_left = names(profile.path())
            .iter()
            .any(|name| name.starts_with("session.json"));
        assert!(!token_is_left, "neither the login nor one that was being written");
    }
}
