//! A device that moves, in a file or into another directory: it goes on there, whole, and never in two places.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use mx_crypto_store::{
    KeySource, PickleStore, SealedStore, StoreKey,
    backend::{Memory, MemoryDisk},
};
use mx_e2ee::{
    Checkup, Client, ClientBuilder, Error, Event, FindingCode, ImportError, MovedDevice, Options, Room, Session,
    orchestrator::Orchestrator,
};
use mx_test_homeserver::Fault;
use tempfile::TempDir;

use crate::world::{Device, World};

/// bob, whose device moves, and alice, who knows him since before.
pub(crate) struct Scene {
    server: World,
    alice: Device,
    room: Room,
    disk: TempDir,
}

const EVENT: &str = "/send/m.room.encrypted";

/// What there is to read. It is acknowledged.
async fn read(client: &Client) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let events = client.receive(Duration::ZERO).await.unwrap();
        if events.is_empty() {
            return bodies;
        }
        bodies.extend(events.iter().filter_map(|event| match event {
            Event::Message(message) => message.body().map(str::to_owned),
            _ => None,
        }));
    }
}

pub(crate) fn file_key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([9; 32]))
}

pub(crate) async fn scene() -> Scene {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let _user = server.register("bob", "password");
    let scene = Scene {
        room: alice.client.create_room(None, &[]).await.unwrap(),
        server,
        alice,
        disk: tempfile::tempdir().unwrap(),
    };
    let bob = scene.at("here").login("bob", "password").await.unwrap();
    scene.room.invite(bob.user_id()).await.unwrap();
    let room = bob.join(scene.room.id().as_str()).await.unwrap();
    scene.alice.client.sync().await.unwrap();
    room.send_text("from here").await.unwrap();
    assert_eq!(scene.alice.bodies().await, ["from here"]);
    fs::write(scene.path("here").join("mine.json"), "{}").unwrap();
    bob.close().await.unwrap();
    scene
}

impl Scene {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    pub(crate) fn at(&self, name: &str) -> ClientBuilder {
        Client::builder()
            .homeserver("http://localhost")
            .transport(self.server.transport())
            .directory(self.path(name))
            .take_along("mine.json")
            .take_along("nothing.json")
    }

    pub(crate) async fn out(&self, from: &str) -> mx_e2ee::Result<MovedDevice> {
        self.at(from).move_out(self.path("file"), &file_key()).await
    }

    pub(crate) async fn arrive(&self, at: &str) -> mx_e2ee::Result<MovedDevice> {
        self.at(at).move_in(self.path("file"), &file_key()).await
    }

    /// It is the device that it was, and everything between it and alice goes on.
    pub(crate) async fn goes_on(&self, at: &str) {
        let bob = self.at(at).open().await.unwrap();
        self.room.send_text(format!("to bob in {at}")).await.unwrap();
        assert_eq!(*read(&bob).await.last().unwrap(), format!("to bob in {at}"));
        let text = format!("from {at}");
        bob.room(self.room.id()).send_text(&text).await.unwrap();
        assert_eq!(*self.alice.bodies().await.last().unwrap(), text);
        bob.close().await.unwrap();
    }

    /// Nothing runs in this directory, and nothing that is done to it reaches the homeserver.
    pub(crate) async fn is_gone(&self, from: &str) {
        let asked = self.server.log().len();
        for error in [
            self.at(from).open().await.unwrap_err(),
            self.at(from).login("bob", "password").await.unwrap_err(),
            self.at(from).logout().await.unwrap_err(),
            self.at(from).files().await.unwrap_err(),
            self.at(from).rekey(None).await.unwrap_err(),
            Session::of(self.path(from)).unwrap_err(),
            self.out(from).await.unwrap_err(),
        ] {
            assert!(["device_moved", "file_exists"].contains(&error.code()), "{error}");
        }
        let found = self.at(from).doctor(Checkup::default()).await.unwrap();
        assert!(found.has(FindingCode::DeviceMoved), "{found:#?}");
        assert_eq!(self.server.log().len(), asked);
        let text = fs::read_to_string(self.path(from).join("session.json")).unwrap();
        assert!(!text.contains("token"), "{text}");
    }
}

#[tokio::test]
async fn a_device_moves_in_a_file_and_goes_on_where_it_arrives() {
    let scene = scene().await;
    let before = scene.at("here").open().await.unwrap();
    let (device, keys) = (before.device_id().to_owned(), before.key_status().await.unwrap());
    before.close().await.unwrap();
    scene.room.send_text("to bob on his way").await.unwrap();
    let moved = scene.out("here").await.unwrap();
    assert_eq!(moved.session.device_id, device);
    scene.is_gone("here").await;
    let arrived = scene.arrive("there").await.unwrap();
    assert_eq!(arrived.session, moved.session);
    let bob = scene.at("there").open().await.unwrap();
    assert_eq!(bob.key_status().await.unwrap().ed25519, keys.ed25519);
    assert_eq!(read(&bob).await, ["to bob on his way"]);
    bob.close().await.unwrap();
    scene.goes_on("there").await;
    assert_eq!(fs::read_to_string(scene.path("there").join("mine.json")).unwrap(), "{}");
    // What is left here is destroyed, and the device is none the worse.
    let wiped = scene.at("here").logout_and_wipe().await.unwrap();
    assert_eq!(wiped.unwrap().device_id, device);
    assert!(!scene.path("here").join("pickle.key").exists() && !scene.path("here").join("store").exists());
    scene.goes_on("there").await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_and_what_comes_out_of_it_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let scene = scene().await;
    scene.out("here").await.unwrap();
    scene.arrive("there").await.unwrap();
    let mut paths = vec![scene.path("file")];
    for entry in fs::read_dir(scene.path("there")).unwrap() {
        paths.push(entry.unwrap().path());
    }
    for path in paths {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path:?}");
    }
}

#[tokio::test]
async fn a_device_moves_into_another_directory_and_back() {
    let scene = scene().await;
    scene.at("here").move_to(scene.path("there")).await.unwrap();
    scene.is_gone("here").await;
    scene.goes_on("there").await;
    // Its key came along, and is not that of another profile.
    let key = |name: &str| fs::read(scene.path(name).join("pickle.key")).unwrap();
    assert_eq!(key("here"), key("there"));
    let error = scene.at("there").move_to(scene.path("there")).await.unwrap_err();
    assert!(matches!(error, Error::Import(ImportError::NotEmpty { .. })), "{error}");
    scene.goes_on("there").await;
    // Home again: what was left there is aside.
    scene.at("there").move_to(scene.path("here")).await.unwrap();
    scene.goes_on("here").await;
    scene.is_gone("there").await;
    scene.is_gone("here.moved-0").await;
    scene.out("here").await.unwrap();
    scene.arrive("there").await.unwrap();
    scene.goes_on("there").await;
    scene.is_gone("there.moved-0").await;
}

#[tokio::test]
async fn a_device_that_cannot_move_stays() {
    let scene = scene().await;
    fs::write(scene.path("file"), "mine").unwrap();
    assert_eq!(scene.out("here").await.unwrap_err().code(), "file_exists");
    assert_eq!(fs::read_to_string(scene.path("file")).unwrap(), "mine");
    let nowhere = scene.path("no/where");
    let error = scene.at("here").move_out(&nowhere, &file_key()).await.unwrap_err();
    assert_eq!(error.code(), "store_export_file");
    let no_key = KeySource::Credential("none".to_owned());
    let key = scene.at("here").move_out(scene.path("other"), &no_key).await;
    key.unwrap_err();
    assert!(!scene.path("other").exists());
    scene.goes_on("here").await;
    fs::create_dir(scene.path("used")).unwrap();
    fs::write(scene.path("used/x"), "mine").unwrap();
    let error = scene.at("here").move_to(scene.path("used")).await.unwrap_err();
    assert_eq!(error.code(), "import_not_empty");
    for name in ["../x", "", "session.json", "store", ".hidden", "a/b"] {
        let error = scene.at("here").take_along(name).move_to(scene.path("there")).await;
        assert_eq!(error.unwrap_err().code(), "configuration", "{name:?}");
    }
    let error = scene.at("nobody").move_to(scene.path("there")).await.unwrap_err();
    assert_eq!(error.code(), "not_logged_in");
    let running = scene.at("here").open().await.unwrap();
    assert_eq!(scene.out("here").await.unwrap_err().code(), "file_exists");
    fs::remove_file(scene.path("file")).unwrap();
    assert_eq!(scene.out("here").await.unwrap_err().code(), "store_in_use");
    running.close().await.unwrap();
    scene.goes_on("here").await;
}

#[tokio::test]
async fn what_waits_to_be_sent_is_sent_before() {
    let scene = scene().await;
    let bob = scene.at("here").options(Options::default()).open().await.unwrap();
    bob.sync().await.unwrap();
    for _ in 0..20 {
        scene
            .server
            .fault(Fault::status(EVENT, 502, "<html>bad gateway</html>"));
    }
    let sent = bob.room(scene.room.id()).send_text("waits").await;
    assert_eq!(sent.unwrap_err().code(), "send_pending");
    bob.close().await.unwrap();
    scene.server.behave();
    assert_eq!(scene.out("here").await.unwrap_err().code(), "unsent_events");
    scene.goes_on("here").await;
    scene.out("here").await.unwrap();
    scene.arrive("there").await.unwrap();
    scene.goes_on("there").await;
}

#[tokio::test]
async fn what_is_not_a_device_does_not_arrive() {
    let scene = scene().await;
    scene.out("here").await.unwrap();
    let file = fs::read(scene.path("file")).unwrap();
    let refused = async |code: &str| {
        let error = scene.arrive("there").await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        let beside: Vec<_> = fs::read_dir(scene.disk.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(beside.len(), 2, "{beside:?}");
    };
    for (at, flipped) in [(9, 1), (40, 1), (file.len() / 2, 1), (file.len() - 1, 0x80)] {
        let mut changed = file.clone();
        changed[at] ^= flipped;
        fs::write(scene.path("file"), &changed).unwrap();
        let error = scene.arrive("there").await.unwrap_err();
        assert!(error.code().starts_with("store_"), "{at}: {error}");
    }
    for length in [0, 7, 30, file.len() / 2, file.len() - 1] {
        fs::write(scene.path("file"), &file[..length]).unwrap();
        refused("store_corrupt").await;
    }
    fs::write(scene.path("file"), &file).unwrap();
    let other = KeySource::Bytes(StoreKey::from_bytes([8; 32]));
    let error = scene.at("there").move_in(scene.path("file"), &other).await.unwrap_err();
    assert_eq!(error.code(), "store_wrong_key");
    // A store that was exported without its device being moved.
    fs::remove_file(scene.path("file")).unwrap();
    let sealed = SealedStore::open(Arc::new(Memory::open(&MemoryDisk::new()).unwrap()), file_key());
    sealed
        .await
        .unwrap()
        .export(&scene.path("file"), &file_key())
        .await
        .unwrap();
    refused("import_foreign").await;
    fs::write(scene.path("file"), &file).unwrap();
    scene.arrive("there").await.unwrap();
    scene.goes_on("there").await;
    let again = scene.arrive("there").await.unwrap_err();
    assert_eq!(again.code(), "import_not_empty");
}

/// Whoever copies the store of a device that left opens no device with it, whatever they build it from.
#[tokio::test]
async fn a_store_whose_device_left_says_so_itself() {
    let scene = scene().await;
    let moved = scene.out("here").await.unwrap();
    let homeserver = scene.alice.client.homeserver().clone();
    let key = KeySource::File(scene.path("here").join("pickle.key"));
    let backend = mx_crypto_store::backend::Sqlite::open(scene.path("here").join("store"));
    let store = PickleStore::open_existing(Arc::new(backend.await.unwrap()), key)
        .await
        .unwrap();
    let Session { user_id, device_id, .. } = moved.session;
    let opened = Orchestrator::open(homeserver, store, &user_id, &device_id, Options::default()).await;
    assert_eq!(opened.unwrap_err().code(), "device_moved");
}

/// The file was lost before it arrived anywhere.
#[tokio::test]
async fn a_file_that_was_lost_is_made_again_when_that_is_asked_for() {
    let scene = scene().await;
    scene.out("here").await.unwrap();
    fs::remove_file(scene.path("file")).unwrap();
    assert_eq!(scene.out("here").await.unwrap_err().code(), "device_moved");
    scene
        .at("here")
        .move_out_again(scene.path("file"), &file_key())
        .await
        .unwrap();
    scene.is_gone("here").await;
    scene.arrive("there").await.unwrap();
    scene.goes_on("there").await;
}

/// Whoever is killed before the last step has a device that does not run, and the same call ends that.
#[tokio::test]
async fn a_move_that_lacks_its_last_step_is_ended_by_the_same_call_alone() {
    let scene = scene().await;
    scene.out("here").await.unwrap();
    let path = scene.path("here").join("session.json");
    let mut login: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let to = login["moved"]["left"]["to"].clone();
    assert_eq!(to, scene.path("file").display().to_string());
    login["moved"] = serde_json::json!({"leaving": {"to": to}});
    login["sealed_tokens"] = "AAAA".into();
    fs::write(&path, login.to_string()).unwrap();
    assert_eq!(scene.at("here").open().await.unwrap_err().code(), "move_unfinished");
    let other = scene.at("here").move_out(scene.path("other"), &file_key()).await;
    assert_eq!(other.unwrap_err().code(), "move_unfinished");
    assert!(!scene.path("other").exists());
    // A file of that name that is something else, or of another device, is no proof that it arrived.
    let file = fs::read(scene.path("file")).unwrap();
    let stranger = crate::moving::scene().await;
    stranger.out("here").await.unwrap();
    for wrong in [b"mine".to_vec(), fs::read(stranger.path("file")).unwrap()] {
        fs::write(scene.path("file"), wrong).unwrap();
        assert_eq!(scene.out("here").await.unwrap_err().code(), "file_exists");
        assert_eq!(scene.at("here").open().await.unwrap_err().code(), "move_unfinished");
    }
    fs::write(scene.path("file"), file).unwrap();
    scene.out("here").await.unwrap();
    scene.is_gone("here").await;
    scene.arrive("there").await.unwrap();
    scene.goes_on("there").await;
}
