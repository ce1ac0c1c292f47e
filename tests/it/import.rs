//! A device that the R client held goes on here: its files as that client writes them, and peers that notice nothing.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use mx_e2ee::{Client, ClientBuilder, Error, ImportError, Room, Trust};
use mx_test_homeserver::EvilPeer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{Device, World};

const KEY: [u8; 32] = *b"the pickle key of the R client..";

/// The R client as alice, bob with this software, a room of theirs in which both have spoken, and the R client's files.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) bob: Device,
    pub(crate) room: Room,
    pub(crate) r_client: EvilPeer,
    pub(crate) files: Arc<TempDir>,
}

pub(crate) async fn scene() -> Scene {
    let world = World::new();
    let mut r_client = EvilPeer::new(&world, "alice", "RDEV");
    r_client.publish();
    let bob = Device::new(&world, "bob").await;
    let room = bob
        .client
        .create_room(None, &[r_client.user().to_owned()])
        .await
        .unwrap();
    r_client.join(room.id());
    room.send_text("to R").await.unwrap();
    r_client.receive();
    // The answer goes out on a session of its own, as that client does it.
    let olm = r_client.olm_session_with(bob.client.user_id(), bob.client.device_id());
    let mut session = r_client.megolm_session(room.id());
    r_client.share_room_key(&olm, &session);
    r_client.send_text(&mut session, "from R");
    assert_eq!(bob.bodies().await, ["from R"]);
    let files = Arc::new(tempfile::tempdir().unwrap());
    write(files.path(), &mut r_client, &bob, &room);
    Scene {
        world,
        bob,
        room,
        r_client,
        files,
    }
}

/// The files, in exactly their form.
fn write(directory: &Path, r_client: &mut EvilPeer, bob: &Device, room: &Room) {
    fs::write(directory.join("pickle.key"), KEY).unwrap();
    let account = r_client.account().pickle().encrypt(&KEY);
    fs::write(directory.join("account.pickle"), format!("{account}\n")).unwrap();
    let pickled = |received: bool| -> BTreeMap<String, String> {
        let sessions = r_client.olm_sessions().map(|(session, key)| (session, key.to_base64()));
        let sessions = sessions.filter(|(session, _)| session.has_received_message() == received);
        sessions
            .map(|(session, key)| (key, session.pickle().encrypt(&KEY)))
            .collect()
    };
    let fingerprint = fingerprint(r_client, bob);
    let room_keys: BTreeMap<String, Value> = r_client
        .room_keys()
        .iter()
        .map(|(id, key)| {
            let key = key.pickle().encrypt(&KEY);
            let written = json!({"session": key, "sender": bob.client.user_id(), "sender_ed25519": fingerprint, "sender_bound": true});
            (format!("{}|{id}", room.id()), written)
        })
        .collect();
    let sessions = json!({"olm": pickled(false), "olm_in": pickled(true), "megolm_out": [], "megolm_in": room_keys});
    fs::write(directory.join("sessions.json"), sessions.to_string()).unwrap();
    let config = json!({
        "server": "http://localhost", "user": "alice", "password": "password", "token": r_client.token(),
        "user_id": r_client.user(), "device_id": r_client.device(), "room_id": room.id(), "sync_token": r_client.since(),
    });
    fs::write(
        directory.join("matrix.json"),
        serde_json::to_vec_pretty(&config).unwrap(),
    )
    .unwrap();
}

pub(crate) fn fingerprint(peer: &EvilPeer, device: &Device) -> String {
    let keys = peer.device_keys_of(device.client.user_id(), device.client.device_id());
    keys["keys"][format!("ed25519:{}", device.client.device_id())]
        .as_str()
        .unwrap()
        .to_owned()
}

impl Scene {
    pub(crate) fn target(&self) -> std::path::PathBuf {
        self.files.path().join("ours")
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder()
            .directory(self.target())
            .transport(self.world.transport())
    }

    pub(crate) async fn import(&self) -> mx_e2ee::Result<mx_e2ee::ImportedDevice> {
        self.builder()
            .import_mx_client(self.files.path(), self.files.path().join("matrix.json"))
            .await
    }

    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.files.path().join(file);
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
    }

    /// Refused, with this code; nothing of ours is there, and nothing of theirs has changed.
    pub(crate) async fn is_refused(&self, code: &str) -> Error {
        let before = contents(self.files.path());
        let error = self.import().await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(contents(self.files.path()), before);
        error
    }
}

pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default()));
    files.collect()
}

#[tokio::test]
async fn the_device_goes_on_and_nobody_notices() {
    let scene = scene().await;
    // While nobody is there: a message with a key that is known, and one with a new key.
    scene.room.send_text("known key").await.unwrap();
    scene.room.rotate_key().await.unwrap();
    scene.room.send_text("new key").await.unwrap();
    let imported = scene.import().await.unwrap();
    assert_eq!(imported.session.device_id, "RDEV");
    assert_eq!(imported.ed25519, scene.r_client.ed25519().to_base64());
    assert_eq!(
        (
            imported.olm_sessions,
            imported.room_keys,
            imported.room_keys_of_unknown_devices
        ),
        (2, 1, 0)
    );

    let client = scene.builder().open().await.unwrap();
    let mut read = Vec::new();
    for event in client.receive(std::time::Duration::ZERO).await.unwrap() {
        if let mx_e2ee::Event::Message(message) = event {
            let trust = message.encryption.as_ref().unwrap().trust;
            read.push((message.body().unwrap_or_default().to_owned(), trust));
        }
    }
    let unsigned = |body: &str| (body.to_owned(), Trust::Unsigned);
    assert_eq!(
        read,
        [unsigned("known key"), unsigned("new key")],
        "and not again what R has read"
    );
    let receipt = client
        .room(scene.room.id())
        .send_text("from the same device")
        .await
        .unwrap();
    assert!(receipt.new_session, "R's own room key is not used any more");
    let messages = scene.bob.messages().await;
    assert_eq!(messages[0].body(), Some("from the same device"));
    let encryption = messages[0].encryption.as_ref().unwrap();
    assert_eq!(encryption.sender_device.as_deref().unwrap(), "RDEV");
    // And back, on the session that was there.
    scene.room.send_text("and you").await.unwrap();
    client.sync().await.unwrap();
    assert_eq!(client.health().await.unwrap(), mx_e2ee::Health::Ok);
    let published = scene
        .r_client
        .device_keys_of(scene.r_client.user(), scene.r_client.device());
    let before = scene.r_client.device_keys();
    assert_eq!(
        (&published["keys"], &published["signatures"]),
        (&before["keys"], &before["signatures"])
    );
}

#[tokio::test]
async fn every_quirk_of_its_files_is_read() {
    let scene = scene().await;
    scene.room.send_text("later").await.unwrap();
    scene.edit("sessions.json", |sessions| {
        sessions["olm"] = json!([]);
        sessions["megolm_out"] = json!({"!r:x": {"session": "AAAA", "shared": []}});
        let keys = sessions["megolm_in"].as_object_mut().unwrap();
        for key in keys.values_mut() {
            *key = key["session"].take();
        }
    });
    scene.edit("matrix.json", |config| config["sync_token"] = json!("NA"));
    let imported = scene.import().await.unwrap();
    assert_eq!((imported.room_keys, imported.room_keys_of_unknown_devices), (1, 1));
    let client = scene.builder().open().await.unwrap();
    let events = client.receive(std::time::Duration::ZERO).await.unwrap();
    let read: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            mx_e2ee::Event::Message(message) => Some((message.body()?, message.encryption.as_ref()?.trust)),
            _ => None,
        })
        .collect();
    assert!(
        read.contains(&("later", Trust::Imported)),
        "nobody knows whose key it is: {read:?}"
    );
}

#[tokio::test]
async fn empty_maps_and_na_in_every_place() {
    let scene = scene().await;
    scene.edit("sessions.json", |sessions| {
        sessions["olm"] = json!({});
        sessions["olm_in"] = json!([]);
        for key in sessions["megolm_in"].as_object_mut().unwrap().values_mut() {
            key["sender"] = json!("NA");
            key["sender_ed25519"] = json!(null);
            key.as_object_mut().unwrap().remove("sender_bound");
        }
    });
    assert_eq!(scene.import().await.unwrap().room_keys_of_unknown_devices, 1);
    fs::remove_dir_all(scene.target()).unwrap();
    fs::remove_file(scene.files.path().join("sessions.json")).unwrap();
    assert_eq!(scene.import().await.unwrap().room_keys, 0, "it never met anybody");
}

#[tokio::test]
async fn what_a_sender_only_claimed_is_not_believed() {
    let scene = scene().await;
    scene.edit("sessions.json", |sessions| {
        for key in sessions["megolm_in"].as_object_mut().unwrap().values_mut() {
            key["sender_bound"] = json!(false);
        }
    });
    assert_eq!(scene.import().await.unwrap().room_keys_of_unknown_devices, 1);
}

#[tokio::test]
async fn a_store_that_is_none_is_refused_untouched() {
    let scene = scene().await;
    let file = |name: &str| scene.files.path().join(name);
    for (name, bad) in [
        ("pickle.key", vec![0; 31]),
        ("pickle.key", vec![7; 32]),
        ("account.pickle", b"AAAA\n".to_vec()),
        ("account.pickle", vec![0xff; 40]),
        ("sessions.json", b"{".to_vec()),
        ("sessions.json", br#"{"olm": ["x"]}"#.to_vec()),
        ("sessions.json", br#"{"olm_in": {"AAAA": "BBBB"}}"#.to_vec()),
        ("matrix.json", br#"{"token": "canary-secret", "user_id": 5}"#.to_vec()),
    ] {
        let good = fs::read(file(name)).unwrap();
        fs::write(file(name), bad).unwrap();
        let error = scene.is_refused("import_foreign").await;
        assert!(!format!("{error:?}").contains("canary-secret"));
        fs::write(file(name), good).unwrap();
    }
    for name in ["pickle.key", "account.pickle", "matrix.json"] {
        let good = fs::read(file(name)).unwrap();
        fs::remove_file(file(name)).unwrap();
        scene.is_refused("import_unreadable").await;
        fs::write(file(name), good).unwrap();
    }
    // A homeserver, or anybody in the room, can have given that client a key under the name of another one, or for no room.
    scene.edit("sessions.json", |sessions| {
        let keys = sessions["megolm_in"].as_object_mut().unwrap();
        let (name, key) = keys
            .iter()
            .next()
            .map(|(name, key)| (name.clone(), key.clone()))
            .unwrap();
        keys.insert(format!("{name}x"), key.clone());
        keys.insert(format!("no room|{}", name.rsplit_once('|').unwrap().1), key);
    });
    let imported = scene.import().await.unwrap();
    assert_eq!((imported.room_keys, imported.room_keys_left_out), (1, 2));
}

#[tokio::test]
async fn a_login_of_another_device_or_of_other_keys_is_refused() {
    let scene = scene().await;
    scene.edit("matrix.json", |config| config["device_id"] = json!("OTHER"));
    scene.is_refused("import_other_device").await;
    scene.edit("matrix.json", |config| config["device_id"] = json!("RDEV"));
    let mut other = EvilPeer::new(&scene.world, "carol", "CDEV");
    let account = other.account().pickle().encrypt(&KEY);
    fs::write(scene.files.path().join("account.pickle"), account).unwrap();
    scene.is_refused("import_other_device").await;
}

#[tokio::test]
async fn a_directory_that_is_used_is_left_alone() {
    let scene = scene().await;
    scene.import().await.unwrap();
    let before = contents(&scene.target());
    let error = scene.import().await.unwrap_err();
    assert!(matches!(error, Error::Import(ImportError::NotEmpty { .. })), "{error}");
    assert_eq!(contents(&scene.target()), before);
    // What an attempt that was killed left is no hindrance.
    fs::remove_dir_all(scene.target()).unwrap();
    let half = scene.files.path().join("ours.importing");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("pickle.key"), b"half").unwrap();
    let error = scene.import().await.unwrap_err();
    assert_eq!(
        error.code(),
        "import_not_empty",
        "it is somebody's, for all that is known"
    );
    fs::write(half.join("importing.lock"), b"").unwrap();
    scene.import().await.unwrap();
    assert!(!half.exists());
}

#[tokio::test]
async fn a_directory_is_named_in_many_ways() {
    let scene = scene().await;
    let import = async |directory: &Path| {
        let builder = Client::builder()
            .directory(directory)
            .transport(scene.world.transport());
        let config = scene.files.path().join("matrix.json");
        builder.import_mx_client(scene.files.path(), config).await
    };
    let inside = |name: &str| scene.files.path().join(name);
    fs::create_dir(inside("empty")).unwrap();
    import(&inside("empty/")).await.unwrap();
    import(&inside("new/./")).await.unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(inside("nowhere"), inside("link")).unwrap();
    for refused in [
        Path::new("/"),
        Path::new("."),
        Path::new(".."),
        &inside("new/.."),
        &inside("link"),
    ] {
        let error = import(refused).await.unwrap_err();
        assert_eq!(error.code(), "configuration", "{}: {error}", refused.display());
    }
    let names = fs::read_dir(scene.files.path()).unwrap();
    let left: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("importing"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
