//! The key file: made whole, for its owner, and nothing else is one.
#![cfg(unix)]

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn made(directory: &tempfile::TempDir) -> (PathBuf, StoreKey) {
    let path = directory.path().join("inner").join("pickle.key");
    let key = StoreKey::generate().unwrap();
    stage(&path, &key).unwrap();
    settle(&path, &key).unwrap();
    (path, key)
}

fn key(path: &Path) -> Result<Option<StoreKey>> {
    read(path, Owner::OnlyUs)
}

#[test]
fn a_key_is_for_its_owner_from_birth() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inner").join("pickle.key");
    assert!(key(&path).unwrap().is_none());
    let wanted = StoreKey::generate().unwrap();
    stage(&path, &wanted).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&staged(&path)), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    settle(&path, &wanted).unwrap();
    assert!(!staged(&path).exists());
    assert_eq!(key(&path).unwrap().unwrap().bytes(), wanted.bytes());
    assert!(!format!("{wanted:?}").contains(char::is_numeric));
}

#[test]
fn a_staged_key_that_opens_nothing_goes_away() {
    let directory = tempfile::tempdir().unwrap();
    let (path, kept) = made(&directory);
    stage(&path, &StoreKey::generate().unwrap()).unwrap();
    settle(&path, &kept).unwrap();
    assert!(!staged(&path).exists());
    assert_eq!(key(&path).unwrap().unwrap().bytes(), kept.bytes());
    // What a crash left of writing one.
    std::fs::write(staged(&path), [7; 5]).unwrap();
    std::fs::set_permissions(staged(&path), std::fs::Permissions::from_mode(0o600)).unwrap();
    settle(&path, &kept).unwrap();
    assert!(!staged(&path).exists());
    let other = StoreKey::generate().unwrap();
    assert!(matches!(
        settle(&path, &other),
        Err(StoreError::KeyOfAnotherStore { .. })
    ));
}

#[test]
fn loose_permissions_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = made(&directory);
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o644, 0o610, 0o777] {
        set(&path, mode);
        assert!(matches!(key(&path), Err(StoreError::KeyPermissions { mode: found, .. }) if found == mode));
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            mode,
            "not mended by itself"
        );
    }
    set(&path, 0o400);
    key(&path).unwrap().unwrap();
    let around = path.parent().unwrap();
    for mode in [0o702, 0o720, 0o777] {
        set(around, mode);
        assert!(matches!(key(&path), Err(StoreError::KeyDirectory { mode: found, .. }) if found == mode));
        let staging = stage(&path, &StoreKey::generate().unwrap());
        assert!(
            matches!(staging, Err(StoreError::KeyDirectory { .. })),
            "nothing is made"
        );
    }
    set(around, 0o1777);
    key(&path).unwrap().unwrap();
}

#[test]
fn only_a_regular_file_of_32_bytes_is_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let (path, kept) = made(&directory);
    let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap();
    let hex: String = kept.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let with_newline = [kept.bytes(), &b"\n"[..]].concat();
    for bytes in [&[][..], &[7; 31], &[7; 33], &[7; 64], &with_newline, hex.as_bytes()] {
        write(bytes);
        assert!(matches!(key(&path), Err(StoreError::KeyMalformed { len, .. }) if len == bytes.len() as u64));
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it is");
    }
    write(kept.bytes());
    let elsewhere = path.with_file_name("elsewhere");
    std::fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(matches!(key(&path), Err(StoreError::KeyFile { .. })), "a link");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(key(&path), Err(StoreError::KeyFile { .. })), "a directory");
    std::fs::remove_dir(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(
            matches!(key(&path), Err(StoreError::KeyFile { .. })),
            "a pipe, which nobody writes"
        );
    }
}
