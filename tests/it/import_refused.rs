//! A device of another client is not taken over while it is unknown whose its keys are, nor from files that are none, never end,
//! or make more work than their client does.

use std::{fs, path::Path};

use mx_e2ee::ImportLogin;
use mx_test_homeserver::Homeserver;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{
    cli::Shell,
    import::{Scene, contents, scene},
    import_matrix_sdk::theirs,
};

/// Bob's server does not answer, or says nothing of him.
fn hide_bob(scene: &Scene, failures: &'static str, is_absent: bool) {
    let bob = scene.bob.client.user_id().to_string();
    scene.world.rewrite("/keys/query", move |_, answer| {
        answer.map(|body| {
            let mut body: Value = serde_json::from_slice(&body).unwrap();
            body["failures"] = serde_json::from_str(failures).unwrap();
            if is_absent {
                body["device_keys"].as_object_mut().unwrap().remove(&bob);
            }
            body.to_string().into()
        })
    });
}

#[tokio::test]
async fn while_a_server_of_who_gave_keys_cannot_be_reached_nothing_is_taken() {
    let scene = scene().await;
    let failed = r#"{"localhost": {"status": 503}}"#;
    for (failures, is_absent) in [(failed, true), (failed, false), ("{}", true)] {
        hide_bob(&scene, failures, is_absent);
        let error = scene.is_refused("import_unreachable").await;
        assert!(error.to_string().contains("localhost"), "{error}");
        scene.world.behave();
    }
    // Somebody else's server is not needed.
    hide_bob(&scene, r#"{"elsewhere.test": {}}"#, false);
    let imported = scene.import().await.unwrap();
    assert_eq!((imported.room_keys, imported.room_keys_of_unknown_devices), (1, 0));
}

#[tokio::test]
async fn a_device_comes_without_those_who_cannot_be_reached_when_that_is_said() {
    let scene = scene().await;
    hide_bob(&scene, r#"{"localhost": {}}"#, true);
    let shell = Shell {
        listening: scene.world.listen().await,
        data: tempfile::tempdir().unwrap(),
        server: Homeserver::clone(&scene.world),
    };
    scene.edit("matrix.json", |config| config["server"] = json!(shell.listening.uri()));
    let store = scene.files.path().display().to_string();
    let refused = shell.run("alice", &["--json", "import", "mx-client", &store]).await;
    assert_eq!(
        refused.status.code(),
        Some(4),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    assert!(contents(shell.data.path()).is_empty());
    let without = ["--json", "import", "mx-client", &store, "--without-unreachable"];
    let taken = shell.run("alice", &without).await;
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let taken: Value = serde_json::from_slice(&taken.stdout).unwrap();
    assert_eq!(taken["room_keys_of_unknown_devices"], 1);
}

#[tokio::test]
async fn a_passphrase_keeps_its_blanks() {
    let mut scene = scene().await;
    drop(scene.write_nio(" the key "));
    let shell = Shell {
        listening: scene.world.listen().await,
        data: tempfile::tempdir().unwrap(),
        server: Homeserver::clone(&scene.world),
    };
    let file = |name: &str, text: &str| {
        let path = shell.data.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let database = scene.database().display().to_string();
    let (token, key) = (
        file("token", &format!(" {}\n", scene.r_client.token())),
        file("key", " the key \r\n"),
    );
    let uri = shell.listening.uri();
    let import = ["import", "nio", &database, "--homeserver", &uri, "--token-file", &token];
    let import = [&import[..], &["--pickle-key-file", &key]].concat();
    let taken = shell.run("alice", &import).await;
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}

#[cfg(target_os = "linux")]
fn put_a_pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_no_file_is_not_waited_for() {
    let mut scene = scene().await;
    drop(scene.write_nio("the key"));
    for name in ["sessions.json", "pickle.key", "account.pickle", "matrix.json"] {
        let path = scene.files.path().join(name);
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        put_a_pipe(&path);
        assert_eq!(scene.import().await.unwrap_err().code(), "import_unreadable", "{name}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, good).unwrap();
    }
    let beside = scene.files.path().join("@alice:localhost_RDEV.db-wal");
    put_a_pipe(&beside);
    let error = scene.import_nio("the key").await.unwrap_err();
    assert_eq!(error.code(), "import_unreadable");
    fs::remove_file(&beside).unwrap();
    fs::remove_file(scene.database()).unwrap();
    put_a_pipe(&scene.database());
    let error = scene.import_nio("the key").await.unwrap_err();
    assert_eq!(error.code(), "import_unreadable");
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let mut scene = scene().await;
    drop(scene.write_nio("the key"));
    // They take no place on the disk.
    let grow = |path: &Path, bytes: u64| {
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(bytes)
            .unwrap()
    };
    grow(&scene.database(), 5 << 30);
    let error = scene.import_nio("the key").await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    fs::remove_file(scene.database()).unwrap();
    grow(&scene.files.path().join("sessions.json"), 300 << 20);
    let error = scene.import().await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[tokio::test]
async fn a_database_that_computes_what_it_holds_is_refused() {
    let mut scene = scene().await;
    drop(scene.write_nio("the key"));
    let good = fs::read(scene.database()).unwrap();
    for statements in [
        "ALTER TABLE accounts RENAME TO kept; CREATE VIEW accounts AS SELECT * FROM kept",
        "ALTER TABLE keys ADD COLUMN more BLOB GENERATED ALWAYS AS (zeroblob(1000)) VIRTUAL",
        "CREATE INDEX odd ON keys (hex(zeroblob(1000)))",
        "CREATE INDEX odd ON keys (key) WHERE length(hex(zeroblob(1000))) > 0",
        "CREATE TRIGGER odd AFTER INSERT ON keys BEGIN DELETE FROM keys; END",
    ] {
        let database = Connection::open(scene.database()).unwrap();
        database.execute_batch(statements).unwrap();
        drop(database);
        let error = scene.import_nio("the key").await.unwrap_err();
        assert_eq!(error.code(), "import_foreign", "{statements}");
        fs::write(scene.database(), &good).unwrap();
    }
    scene.import_nio("the key").await.unwrap();
}

#[tokio::test]
async fn the_work_that_a_sealed_store_asks_for_has_an_end() {
    let (server, directory, token) = theirs("a passphrase").await;
    let database = Connection::open(directory.path().join("matrix-sdk-crypto.sqlite3")).unwrap();
    let read = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
    let sealed = database
        .query_row("SELECT value FROM kv WHERE key = 'cipher'", (), read)
        .unwrap();
    let sealed: Value = rmp_serde::from_slice(&sealed).unwrap();
    for rounds in [1_000_001_u32, u32::MAX] {
        let mut more = sealed.clone();
        more["kdf_info"]["Pbkdf2ToChaCha20Poly1305"]["rounds"] = rounds.into();
        for written in [
            rmp_serde::to_vec_named(&more).unwrap(),
            serde_json::to_vec(&more).unwrap(),
        ] {
            database
                .execute("UPDATE kv SET value = ?1 WHERE key = 'cipher'", (&written,))
                .unwrap();
            let before = contents(directory.path());
            let ours = tempfile::tempdir().unwrap();
            let login = ImportLogin::new("http://localhost", &token).unwrap();
            let builder = mx_e2ee::Client::builder()
                .directory(ours.path().join("device"))
                .transport(server.transport());
            let imported = builder
                .import_matrix_sdk(directory.path(), Some("a passphrase"), login)
                .await;
            let error = imported.unwrap_err();
            assert!(error.to_string().contains("not sealed as that client"), "{error}");
            assert!(contents(directory.path()) == before, "untouched");
            assert!(contents(ours.path()).is_empty());
        }
    }
}
