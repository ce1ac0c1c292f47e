//! A device that matrix-nio held goes on here: its database, row by row as it writes it. With one that it wrote itself: cell 14
//! of `cargo xtask interop`.

use std::time::Duration;

use mx_e2ee::{Client, Event, ImportLogin, Trust};
use rusqlite::Connection;
use sha2::{Digest, Sha256};

use crate::import::{Scene, contents, fingerprint, scene};

const NIO: &str = "
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, account BLOB, user_id TEXT, device_id TEXT, shared INTEGER);
    CREATE TABLE olmsessions (creation_time TEXT, last_usage_date TEXT, sender_key TEXT, account_id INTEGER, session BLOB,
        session_id TEXT PRIMARY KEY);
    CREATE TABLE megolminboundsessions (sender_key TEXT, account_id INTEGER, fp_key TEXT, room_id TEXT, session BLOB,
        session_id TEXT PRIMARY KEY);
    CREATE TABLE forwardedchains (id INTEGER PRIMARY KEY, sender_key TEXT, session_id TEXT);
    CREATE TABLE devicekeys (id INTEGER PRIMARY KEY, device_id TEXT, user_id TEXT, display_name TEXT, deleted INTEGER,
        account_id INTEGER);
    CREATE TABLE keys (id INTEGER PRIMARY KEY, key_type TEXT, key TEXT, device_id INTEGER);
    CREATE TABLE synctokens (id INTEGER PRIMARY KEY, token TEXT, account_id INTEGER);
    CREATE TABLE storeversion (id INTEGER PRIMARY KEY, version INTEGER);
    INSERT INTO storeversion (version) VALUES (2);";

impl Scene {
    pub(crate) fn database(&self) -> std::path::PathBuf {
        self.files.path().join("@alice:localhost_RDEV.db")
    }

    /// What nio 0.26 writes.
    pub(crate) fn write_nio(&mut self, passphrase: &str) -> Connection {
        let key: [u8; 32] = Sha256::digest(passphrase).into();
        let database = Connection::open(self.database()).unwrap();
        database.execute_batch(NIO).unwrap();
        let account = self.r_client.account().pickle().encrypt(&key);
        database
            .execute(
                "INSERT INTO accounts VALUES (1, ?1, ?2, ?3, 1)",
                (
                    account.as_bytes(),
                    self.r_client.user().as_str(),
                    self.r_client.device().as_str(),
                ),
            )
            .unwrap();
        for (number, (session, theirs)) in self.r_client.olm_sessions().enumerate() {
            let time = format!("2026-11-27 10:00:{number:02}.000000");
            let pickle = session.pickle().encrypt(&key);
            database
                .execute(
                    "INSERT INTO olmsessions VALUES (?1, ?1, ?2, 1, ?3, ?4)",
                    (time, theirs.to_base64(), pickle.as_bytes(), session.session_id()),
                )
                .unwrap();
        }
        let bob = &self.bob.client;
        let keys = self.r_client.device_keys_of(bob.user_id(), bob.device_id());
        let curve25519 = keys["keys"][format!("curve25519:{}", bob.device_id())]
            .as_str()
            .unwrap();
        let ed25519 = fingerprint(&self.r_client, &self.bob);
        for (id, room_key) in self.r_client.room_keys() {
            let pickle = room_key.pickle().encrypt(&key);
            database
                .execute(
                    "INSERT INTO megolminboundsessions VALUES (?1, 1, ?2, ?3, ?4, ?5)",
                    (curve25519, &ed25519, self.room.id().as_str(), pickle.as_bytes(), id),
                )
                .unwrap();
        }
        database
            .execute(
                "INSERT INTO devicekeys VALUES (1, ?1, ?2, '', 0, 1)",
                (bob.device_id().as_str(), bob.user_id().as_str()),
            )
            .unwrap();
        for (kind, key) in [("curve25519", curve25519), ("ed25519", &ed25519)] {
            database
                .execute(
                    "INSERT INTO keys (key_type, key, device_id) VALUES (?1, ?2, 1)",
                    (kind, key),
                )
                .unwrap();
        }
        database
            .execute("INSERT INTO synctokens VALUES (1, ?1, 1)", (self.r_client.since(),))
            .unwrap();
        database
    }

    pub(crate) async fn import_nio(&self, passphrase: &str) -> mx_e2ee::Result<mx_e2ee::ImportedDevice> {
        let login = ImportLogin::new("http://localhost", self.r_client.token()).unwrap();
        self.builder().import_nio(self.database(), passphrase, login).await
    }
}

pub(crate) async fn read(client: &Client) -> Vec<(String, Trust)> {
    let mut read = Vec::new();
    for event in client.receive(Duration::ZERO).await.unwrap() {
        if let Event::Message(message) = event {
            let trust = message.encryption.as_ref().unwrap().trust;
            read.push((message.body().unwrap_or_default().to_owned(), trust));
        }
    }
    read
}

#[tokio::test]
async fn the_device_of_nio_goes_on() {
    let mut scene = scene().await;
    scene.room.send_text("known key").await.unwrap();
    scene.room.rotate_key().await.unwrap();
    scene.room.send_text("new key").await.unwrap();
    // Written, and not yet in the file itself.
    let database = scene.write_nio("DEFAULT_KEY");
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    database.execute("DELETE FROM storeversion", ()).unwrap();
    let before = contents(scene.files.path());
    let imported = scene.import_nio("DEFAULT_KEY").await.unwrap();
    assert_eq!(imported.ed25519, scene.r_client.ed25519().to_base64());
    assert_eq!(
        (
            imported.olm_sessions,
            imported.room_keys,
            imported.room_keys_of_unknown_devices
        ),
        (2, 1, 1)
    );
    let mut after = contents(scene.files.path());
    after.remove(&scene.target().display().to_string());
    assert_eq!(after, before, "untouched");

    let client = scene.builder().open().await.unwrap();
    let expected = [("known key", Trust::Imported), ("new key", Trust::Unsigned)];
    assert_eq!(
        read(&client).await,
        expected.map(|(body, trust)| (body.to_owned(), trust))
    );
    client
        .room(scene.room.id())
        .send_text("from the same device")
        .await
        .unwrap();
    let messages = scene.bob.messages().await;
    let encryption = messages[0].encryption.as_ref().unwrap();
    assert_eq!(encryption.sender_device.as_deref().unwrap(), "RDEV");
}

#[tokio::test]
async fn what_is_no_store_of_nio_is_refused_untouched() {
    let mut scene = scene().await;
    let database = scene.write_nio("the key");
    drop(database);
    let good = std::fs::read(scene.database()).unwrap();
    let is_refused = async |scene: &Scene, key: &str| {
        let before = contents(scene.files.path());
        let error = scene.import_nio(key).await.unwrap_err();
        assert_eq!(error.code(), "import_foreign", "{error}");
        assert_eq!(contents(scene.files.path()), before);
    };
    is_refused(&scene, "not the key").await;
    for statement in [
        "DELETE FROM accounts",
        "INSERT INTO accounts SELECT 2, account, user_id, 'OTHER', shared FROM accounts",
        "UPDATE olmsessions SET session = 'AAAA'",
        "UPDATE olmsessions SET sender_key = 'AAAA'",
        "UPDATE megolminboundsessions SET session_id = 'another'",
        "UPDATE megolminboundsessions SET room_id = 'no room'",
        "UPDATE megolminboundsessions SET session = 7",
        "DROP TABLE megolminboundsessions",
    ] {
        let database = Connection::open(scene.database()).unwrap();
        database.execute(statement, ()).unwrap();
        drop(database);
        is_refused(&scene, "the key").await;
        std::fs::write(scene.database(), &good).unwrap();
    }
    std::fs::write(scene.database(), &good[..good.len() / 2]).unwrap();
    is_refused(&scene, "the key").await;
    std::fs::write(scene.database(), b"no database at all").unwrap();
    is_refused(&scene, "the key").await;
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_beside_a_database_is_read_through_a_link_too() {
    let mut scene = scene().await;
    scene.room.send_text("one").await.unwrap();
    let database = scene.write_nio("DEFAULT_KEY");
    database.pragma_update(None, "journal_mode", "wal").unwrap();
    // Only in the file beside it.
    database
        .execute("UPDATE accounts SET device_id = 'GONE' WHERE id = 1", ())
        .unwrap();
    database
        .execute("UPDATE accounts SET device_id = 'RDEV' WHERE id = 1", ())
        .unwrap();
    database.execute("DELETE FROM megolminboundsessions", ()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(scene.database(), &link).unwrap();
    let login = ImportLogin::new("http://localhost", scene.r_client.token()).unwrap();
    let imported = scene.builder().import_nio(link, "DEFAULT_KEY", login).await.unwrap();
    assert_eq!(imported.room_keys, 0);
}
