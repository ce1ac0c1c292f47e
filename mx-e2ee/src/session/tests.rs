//! What is on the disk, and what a process that died while it wrote leaves there.

use std::time::{Duration, SystemTime};

use mx_crypto_store::{KeySource, StoreKey};
use mx_transport::{AccessToken, Masquerade, OAuthClient, RefreshToken, Tokens};

use super::*;

fn session() -> Session {
    Session {
        homeserver: "https://hs.test".to_owned(),
        user_id: ruma::user_id!("@a:hs.test").to_owned(),
        device_id: "DEVICE".into(),
    }
}

fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

fn tokens(number: u32) -> Tokens {
    let access = AccessToken::new(format!("access-{number}")).unwrap();
    let refresh = Some(RefreshToken::new(format!("refresh-{number}")));
    Tokens::lasting(access, refresh, Some(Duration::from_secs(300)))
}

async fn save(directory: &Path, number: u32) -> Result<()> {
    let safe = Safe::create(key()).await?;
    safe.save(directory, &session(), &Credentials::native(tokens(number)))
}

async fn read(directory: &Path) -> Result<Option<Credentials>> {
    let (found, kept) = find(directory)?.unwrap();
    assert_eq!(found, session());
    Ok(unlock(&key(), directory, &found, kept)
        .await?
        .map(|(_, credentials)| credentials))
}

async fn access(directory: &Path) -> String {
    read(directory)
        .await
        .unwrap()
        .unwrap()
        .tokens
        .access
        .expose()
        .to_owned()
}

fn mode(directory: &Path) -> u32 {
    let metadata = fs::metadata(directory.join(FILE)).unwrap();
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}

fn put(directory: &Path, text: &str) {
    let path = directory.join(FILE);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn nw_25_a_login_is_what_was_kept_and_its_tokens_are_sealed() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), 1).await.unwrap();
    let held = read(here.path()).await.unwrap().unwrap().tokens;
    assert_eq!(held.refresh.unwrap().expose(), "refresh-1");
    let left = held.expires_at.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(
        left > Duration::from_secs(200) && left <= Duration::from_secs(300),
        "{left:?}"
    );
    assert_eq!(mode(here.path()), 0o600);
    let text = fs::read_to_string(here.path().join(FILE)).unwrap();
    assert!(!text.contains("access") && !text.contains("refresh"), "{text}");
    assert_eq!(Session::of(here.path()).unwrap().unwrap(), session(), "without a key");
    let (found, kept) = find(here.path()).unwrap().unwrap();
    let other = KeySource::Bytes(StoreKey::from_bytes([8; 32]));
    let error = unlock(&other, here.path(), &found, kept).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "store_wrong_key");
}

#[tokio::test]
async fn every_kind_of_login_is_read_back() {
    let here = tempfile::tempdir().unwrap();
    let safe = Safe::create(key()).await.unwrap();
    let client = OAuthClient::new("https://auth.test/", "me");
    let bot = Masquerade::user(session().user_id).device("DEVICE".into()).unstable();
    for kind in [Kind::Native, Kind::OAuth(client.clone()), Kind::AppService(bot.clone())] {
        let tokens = tokens(1);
        safe.save(
            here.path(),
            &session(),
            &Credentials {
                tokens,
                kind: kind.clone(),
            },
        )
        .unwrap();
        match (kind, read(here.path()).await.unwrap().unwrap().kind) {
            (Kind::Native, Kind::Native) => {}
            (Kind::OAuth(_), Kind::OAuth(read)) => assert_eq!(read, client),
            (Kind::AppService(_), Kind::AppService(read)) => assert_eq!(read, bot),
            (_, read) => panic!("{read:?}"),
        }
    }
}

#[tokio::test]
async fn nw_25_tokens_of_before_they_were_sealed_are_sealed_before_they_are_used() {
    for more in [r#","refresh_token":"refresh-0","access_token_expires_at_ms":1"#, ""] {
        let here = tempfile::tempdir().unwrap();
        put(
            here.path(),
            &format!(
                r#"{{"homeserver":"https://hs.test","user_id":"@a:hs.test","device_id":"DEVICE","access_token":"access-0"{more}}}"#
            ),
        );
        let held = read(here.path()).await.unwrap().unwrap().tokens;
        assert_eq!(held.access.expose(), "access-0");
        assert_eq!(held.refresh.is_some(), !more.is_empty());
        assert_eq!(held.expires_at.is_some(), !more.is_empty());
        let text = fs::read_to_string(here.path().join(FILE)).unwrap();
        assert!(!text.contains("access-0") && !text.contains("refresh-0"), "{text}");
        assert_eq!(mode(here.path()), 0o600);
        assert_eq!(access(here.path()).await, "access-0");
    }
}

#[tokio::test]
async fn a_login_that_was_ended_holds_nothing() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), 1).await.unwrap();
    mark_ended(here.path(), &session());
    assert!(read(here.path()).await.unwrap().is_none());
    assert!(Session::of(here.path()).unwrap().is_none());
}

/// Between two operations of the write, all that a process that dies leaves is a staged file, whole or not.
#[tokio::test]
async fn k23_a_write_that_was_not_ended_leaves_the_old_login_and_is_made_up_for() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), 1).await.unwrap();
    let whole = fs::read(here.path().join(FILE)).unwrap();
    for staged in [&[][..], &whole[..40], &whole] {
        fs::write(here.path().join("session.json.new"), staged).unwrap();
        assert_eq!(access(here.path()).await, "access-1");
        save(here.path(), 2).await.unwrap();
        assert_eq!(access(here.path()).await, "access-2");
        assert!(!here.path().join("session.json.new").exists());
        save(here.path(), 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_write_that_fails_leaves_the_old_login() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), 1).await.unwrap();
    // It can be neither removed nor replaced.
    fs::create_dir(here.path().join("session.json.new")).unwrap();
    let error = save(here.path(), 2).await.unwrap_err();
    assert_eq!(error.code(), "session_file");
    assert!(!format!("{error} {error:?}").contains("access"));
    assert_eq!(access(here.path()).await, "access-1");
}

#[tokio::test]
async fn a_damaged_login_is_an_error_that_quotes_nothing() {
    let here = tempfile::tempdir().unwrap();
    save(here.path(), 1).await.unwrap();
    let whole = fs::read_to_string(here.path().join(FILE)).unwrap();
    let old =
        r#"{"homeserver":"https://hs.test","user_id":"@a:hs.test","device_id":"DEVICE","access_token":"access 1"}"#;
    for damaged in [
        old.to_owned(),
        old.replace("\"access 1\"", "[\"access-1\"]"),
        whole[..60].to_owned(),
        // Sealed for another homeserver, to which the tokens would go.
        whole.replace("sealed_tokens\": \"", "sealed_tokens\": \"AAAA"),
    ] {
        put(here.path(), &damaged);
        let error = match find(here.path()) {
            Err(error) => error,
            Ok(found) => {
                let (found, kept) = found.unwrap();
                unlock(&key(), here.path(), &found, kept).await.map(|_| ()).unwrap_err()
            }
        };
        assert_eq!(error.code(), "session_file", "{damaged}");
        let said = format!("{error} {error:?}");
        assert!(!said.contains("access"), "{said}");
    }
    // Tokens do not go to another homeserver because somebody wrote its address into the file.
    put(here.path(), &whole.replace("https://hs.test", "https://evil.test"));
    let (found, kept) = find(here.path()).unwrap().unwrap();
    let error = unlock(&key(), here.path(), &found, kept).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "session_file");
}

/// A rekeying that dies between two of its steps: what is on the disk then opens with the key that opens the store.
#[tokio::test]
async fn a_rekeying_leaves_tokens_that_the_key_of_the_store_opens_wherever_it_dies() {
    use std::sync::Arc;

    use mx_crypto_store::{
        PickleStore, StoreError,
        backend::{Memory, MemoryDisk},
    };

    let here = tempfile::tempdir().unwrap();
    let file = KeySource::File(here.path().join("pickle.key"));
    let disk = MemoryDisk::new();
    let open = async || {
        PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), file.clone())
            .await
            .unwrap()
    };
    let store = open().await;
    let credentials = Credentials::native(tokens(1));
    let safe = Safe::create(file.clone()).await.unwrap();
    safe.save(here.path(), &session(), &credentials).unwrap();
    let access = async || {
        let (found, kept) = find(here.path()).unwrap().unwrap();
        let (_, credentials) = unlock(&file, here.path(), &found, kept).await?.unwrap();
        Ok::<_, Error>(credentials.tokens.access.expose().to_owned())
    };
    // It dies after the tokens are sealed with both keys, before the store has the new one.
    let died = store.sealed().rekey_with(&file, |key| {
        safe::save_for_both(here.path(), &session(), (&safe, &credentials), key).map_err(|_| StoreError::WrongKey)?;
        Err::<(), _>(StoreError::WrongKey)
    });
    assert!(died.await.is_err());
    store.shutdown().await.unwrap();
    drop(store);
    assert_eq!(access().await.unwrap(), "access-1", "with both keys beside each other");
    let store = open().await;
    assert_eq!(access().await.unwrap(), "access-1", "with the former key alone");
    // It dies after the store has the new one, before the tokens are sealed with it alone.
    let former = fs::read(here.path().join("pickle.key")).unwrap();
    let died = store.sealed().rekey_with(&file, |key| {
        safe::save_for_both(here.path(), &session(), (&safe, &credentials), key).map(drop)
    });
    died.await.unwrap();
    assert_ne!(fs::read(here.path().join("pickle.key")).unwrap(), former);
    assert_eq!(access().await.unwrap(), "access-1", "with the new key");
    // All of it, and once more: the key is another one each time, and nothing of before is left.
    for _ in 0..2 {
        rekey(here.path(), &store, &file, &file).await.unwrap();
        assert_eq!(access().await.unwrap(), "access-1");
        let text = fs::read_to_string(here.path().join(FILE)).unwrap();
        assert!(!text.contains("sealed_tokens_next"), "{text}");
    }
    // A process that began before goes on: it reads with the new key, and keeps with it.
    let (found, kept) = find(here.path()).unwrap().unwrap();
    safe.read(here.path(), &found, kept).await.unwrap().unwrap();
    safe.save(here.path(), &session(), &Credentials::native(tokens(2)))
        .unwrap();
    assert_eq!(access().await.unwrap(), "access-2");
    let passphrase = KeySource::Passphrase(mx_crypto_store::Passphrase::new("another"));
    rekey(here.path(), &store, &file, &passphrase).await.unwrap();
    assert!(access().await.is_err(), "the former key opens nothing any more");
    let (found, kept) = find(here.path()).unwrap().unwrap();
    let (_, credentials) = unlock(&passphrase, here.path(), &found, kept).await.unwrap().unwrap();
    assert_eq!(credentials.tokens.access.expose(), "access-2");
}
