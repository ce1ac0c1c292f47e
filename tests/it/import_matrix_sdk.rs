//! A device that matrix-rust-sdk held goes on here: its database, as it writes it and row by row.

use std::{path::Path, time::Duration};

use matrix_sdk_crypto::store::CryptoStore as _;
use matrix_sdk_sqlite::SqliteCryptoStore;
use matrix_sdk_store_encryption::StoreCipher;
use mx_crypto_store::{PickleStore, backend::Memory};
use mx_e2ee::{Client, ImportLogin, Trust};
use mx_test_homeserver::Homeserver;
use ruma::api::client::membership::join_room_by_id;
use rusqlite::Connection;
use serde::Serialize;

use crate::{
    engine_machine::Bare,
    import::contents,
    import_nio::read,
    world::{Device, Pair, key, pair},
};

/// What matrix-sdk-sqlite keeps, with its schema of version 0.18.
struct Sdk {
    database: Connection,
    cipher: Option<StoreCipher>,
}

impl Sdk {
    fn new(directory: &Path, passphrase: Option<&str>) -> Self {
        let database = Connection::open(directory.join("matrix-sdk-crypto.sqlite3")).unwrap();
        database
            .execute_batch(
                "CREATE TABLE kv (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL);
                 CREATE TABLE session (session_id BLOB PRIMARY KEY NOT NULL, sender_key BLOB NOT NULL, data BLOB NOT NULL);
                 CREATE TABLE inbound_group_session (session_id BLOB PRIMARY KEY NOT NULL, room_id BLOB NOT NULL,
                    backed_up INTEGER NOT NULL, data BLOB NOT NULL, sender_key BLOB, sender_data_type INTEGER);
                 CREATE TABLE device (user_id BLOB NOT NULL, device_id BLOB NOT NULL, data BLOB NOT NULL);
                 CREATE TABLE identity (user_id BLOB PRIMARY KEY NOT NULL, data BLOB NOT NULL);",
            )
            .unwrap();
        let mut sdk = Self { database, cipher: None };
        sdk.keep_raw("version", &[17]);
        if let Some(passphrase) = passphrase {
            let cipher = StoreCipher::new().unwrap();
            sdk.keep_raw("cipher", &cipher.export(passphrase).unwrap());
            sdk.cipher = Some(cipher);
        }
        sdk
    }

    fn keep_raw(&self, key: &str, value: &[u8]) {
        let insert = "INSERT OR REPLACE INTO kv VALUES (?1, ?2)";
        self.database.execute(insert, (key, value)).unwrap();
    }

    fn value(&self, value: &impl Serialize) -> Vec<u8> {
        let plain = rmp_serde::to_vec_named(value).unwrap();
        match &self.cipher {
            Some(cipher) => rmp_serde::to_vec_named(&cipher.encrypt_value_data(plain).unwrap()).unwrap(),
            None => plain,
        }
    }

    fn insert(&self, table: &str, value: &impl Serialize) {
        let id = ruma::TransactionId::new().to_string().into_bytes();
        let rest = if table == "inbound_group_session" {
            ", 1, ?3, NULL, NULL"
        } else {
            ", ?3"
        };
        let insert = format!("INSERT INTO {table} VALUES (?1, ?2{rest})");
        self.database
            .execute(&insert, (&id, b"hidden".to_vec(), self.value(value)))
            .unwrap();
    }
}

/// Alice with this engine, whose records are written as that store writes them; and her token.
#[expect(
    clippy::future_not_send,
    reason = "a database of SQLite is of one thread, as this test is"
)]
pub(crate) async fn sdk(pair: Pair, directory: &Path, passphrase: Option<&str>) -> (Device, mx_e2ee::Room, String) {
    let Pair {
        server,
        alice,
        bob,
        bobs_room,
        room,
    } = pair;
    room.send_text("before").await.unwrap();
    assert_eq!(bob.bodies().await, ["before"]);
    bobs_room.send_text("read before").await.unwrap();
    assert_eq!(alice.bodies().await, ["read before"]);
    let bobs_key = {
        let keys = bob.client.orchestrator().key_status().await.unwrap();
        keys.curve25519
    };
    let (user, device) = (alice.client.user_id().to_owned(), alice.client.device_id().to_owned());
    let disk = alice.disk.clone();
    drop((room, alice));
    let backend = loop {
        match Memory::open(&disk) {
            Ok(backend) => break backend,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let store = PickleStore::open_existing(std::sync::Arc::new(backend), key())
        .await
        .unwrap();
    let sdk = Sdk::new(directory, passphrase);
    let account = store.load_account().await.unwrap().unwrap();
    sdk.keep_raw("account", &sdk.value(&account.pickle()));
    for session in store.get_sessions(&bobs_key).await.unwrap().unwrap() {
        sdk.insert("session", &session.pickle().await);
    }
    for room_key in store.get_inbound_group_sessions().await.unwrap() {
        sdk.insert("inbound_group_session", &room_key.pickle().await);
    }
    for device in store
        .get_user_devices(bob.client.user_id())
        .await
        .unwrap()
        .into_values()
    {
        sdk.database
            .execute("INSERT INTO device VALUES (x'00', x'01', ?1)", (sdk.value(&device),))
            .unwrap();
    }
    (bob, bobs_room, server.token(&user, device.as_str()))
}

/// A sealed store of alice, her homeserver and her token.
#[expect(
    clippy::future_not_send,
    reason = "a database of SQLite is of one thread, as this test is"
)]
pub(crate) async fn theirs(passphrase: &str) -> (Homeserver, tempfile::TempDir, String) {
    let pair = pair().await;
    let server = Homeserver::clone(&pair.server);
    let directory = tempfile::tempdir().unwrap();
    let (_bob, _room, token) = sdk(pair, directory.path(), Some(passphrase)).await;
    (server, directory, token)
}

#[tokio::test]
async fn the_device_of_matrix_sdk_goes_on_sealed_or_not() {
    for passphrase in [None, Some("a passphrase")] {
        let pair = pair().await;
        let server = pair.server.clone();
        let fingerprint = pair.alice.client.orchestrator().key_status().await.unwrap().ed25519;
        let theirs = tempfile::tempdir().unwrap();
        let ours = tempfile::tempdir().unwrap();
        let (bob, bobs_room, token) = sdk(pair, theirs.path(), passphrase).await;
        bobs_room.send_text("while nobody was there").await.unwrap();

        let builder = || {
            Client::builder()
                .directory(ours.path().join("device"))
                .transport(server.transport())
        };
        let login = || ImportLogin::new("http://localhost", &token).unwrap();
        let before = contents(theirs.path());
        for wrong in [Some("another"), None, Some("a passphrase")] {
            if wrong != passphrase {
                let error = builder()
                    .import_matrix_sdk(theirs.path(), wrong, login())
                    .await
                    .unwrap_err();
                assert_eq!(error.code(), "import_foreign", "{error}");
                assert!(
                    contents(theirs.path()) == before,
                    "untouched, and with no file beside it"
                );
            }
        }
        let imported = builder()
            .import_matrix_sdk(theirs.path(), passphrase, login())
            .await
            .unwrap();
        assert!(contents(theirs.path()) == before, "untouched");
        assert_eq!(imported.ed25519, fingerprint);
        assert!(imported.olm_sessions > 0 && imported.room_keys > 0);

        let client = builder().open().await.unwrap();
        let read = read(&client).await;
        assert!(
            read.contains(&("while nobody was there".to_owned(), Trust::Unsigned)),
            "{read:?}"
        );
        assert!(read.contains(&("read before".to_owned(), Trust::Unsigned)), "{read:?}");
        client
            .room(bobs_room.id())
            .send_text("from the same device")
            .await
            .unwrap();
        assert_eq!(bob.bodies().await, ["from the same device"]);
    }
}

/// The engine on that very store, as matrix-rust-sdk 0.18 runs it: what is on the disk is what it writes.
#[tokio::test]
async fn the_device_in_a_store_that_matrix_sdk_wrote_goes_on() {
    for passphrase in [None, Some("a passphrase")] {
        let Pair { server, bob, room, .. } = pair().await;
        let theirs = tempfile::tempdir().unwrap();
        let ours = tempfile::tempdir().unwrap();
        let store = SqliteCryptoStore::open(theirs.path(), passphrase).await.unwrap();
        let mut bare = Bare::with_store(&server, store).await;
        let fingerprint = bare.machine.identity_keys().ed25519.to_base64();
        let user = bare.user().to_owned();
        room.invite(&user).await.unwrap();
        bare.client
            .send(join_room_by_id::v3::Request::new(room.id().to_owned()))
            .await
            .unwrap();
        let bobs_room = bob.client.room(room.id());
        bare.track(&[bob.client.user_id()]).await;
        bare.share(room.id(), &[bob.client.user_id()]).await;
        let event = bare.encrypt(room.id(), "before").await;
        server.inject(room.id(), &user, "m.room.encrypted", event);
        assert_eq!(bob.bodies().await, ["before"]);
        bobs_room.send_text("read before").await.unwrap();
        bare.sync().await.unwrap();
        let last = server.timeline(room.id()).pop().unwrap();
        assert_eq!(bare.read(room.id(), &last).await.as_deref(), Ok("read before"));
        drop(bare);
        // The last connection that ends takes the log of writes with it. Of two that end at once, neither may be the last.
        while theirs.path().join("matrix-sdk-crypto.sqlite3-wal").exists() {
            let last = Connection::open(theirs.path().join("matrix-sdk-crypto.sqlite3")).unwrap();
            let _busy = last.query_row("SELECT count(*) FROM kv", (), |row| row.get::<_, i64>(0));
            drop(last);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bobs_room.send_text("while nobody was there").await.unwrap();

        let builder = || {
            Client::builder()
                .directory(ours.path().join("device"))
                .transport(server.transport())
        };
        let before = contents(theirs.path());
        let login = ImportLogin::new("http://localhost", &server.token(&user, "BARE")).unwrap();
        let imported = builder()
            .import_matrix_sdk(theirs.path(), passphrase, login)
            .await
            .unwrap();
        assert!(contents(theirs.path()) == before, "untouched");
        assert_eq!(imported.ed25519, fingerprint);
        assert_eq!((imported.olm_sessions, imported.room_keys), (1, 2));

        let client = builder().open().await.unwrap();
        let read = read(&client).await;
        for words in ["read before", "while nobody was there"] {
            assert!(read.contains(&(words.to_owned(), Trust::Unsigned)), "{read:?}");
        }
        client.room(room.id()).send_text("from the same device").await.unwrap();
        assert_eq!(bob.bodies().await, ["from the same device"]);
        bobs_room.rotate_key().await.unwrap();
        bobs_room.send_text("with a new key").await.unwrap();
        assert_eq!(
            self::read(&client).await,
            [("with a new key".to_owned(), Trust::Unsigned)]
        );
    }
}

#[tokio::test]
async fn a_store_of_a_later_matrix_sdk_is_refused() {
    let pair = pair().await;
    let server = pair.server.clone();
    let theirs = tempfile::tempdir().unwrap();
    let ours = tempfile::tempdir().unwrap();
    let (_bob, _room, token) = sdk(pair, theirs.path(), None).await;
    let database = Connection::open(theirs.path().join("matrix-sdk-crypto.sqlite3")).unwrap();
    for statement in [
        "UPDATE kv SET value = x'12' WHERE key = 'version'",
        "DELETE FROM kv WHERE key = 'version'",
        "INSERT OR REPLACE INTO kv VALUES ('version', x'11'), ('account', x'00')",
        "DELETE FROM kv WHERE key = 'account'",
    ] {
        database.execute(statement, ()).unwrap();
        let before = contents(theirs.path());
        let login = ImportLogin::new("http://localhost", &token).unwrap();
        let builder = Client::builder()
            .directory(ours.path().join("device"))
            .transport(server.transport());
        let error = builder.import_matrix_sdk(theirs.path(), None, login).await.unwrap_err();
        assert_eq!(error.code(), "import_foreign", "{error}");
        assert!(contents(theirs.path()) == before, "untouched: {statement}");
    }
    assert!(contents(ours.path()).is_empty());
}
