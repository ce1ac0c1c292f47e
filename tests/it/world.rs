//! What the tests share: a homeserver that is watched, devices on it, and disks that outlive them.
//!
//! A [`World`] is a homeserver and a guard: when it goes out of scope, the test fails for everything that must never
//! happen and did, whatever the test itself was about. On the wire that is what the homeserver's oracle saw; beyond it,
//! secrets in log lines, rows and files ([`leaks`]); a watchdog ends what hangs or eats the memory ([`watchdog`]).

pub(crate) mod inbox;
pub(crate) mod leaks;
pub(crate) mod seed;
pub(crate) mod watchdog;

use std::{
    fmt::{Debug, Display},
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use matrix_sdk_crypto::{olm::InboundGroupSession, store::CryptoStore};
use mx_crypto_store::{
    KeySource, StoreKey,
    backend::{Memory, MemoryDisk},
};
use mx_e2ee::{Client, ClientBuilder, Event, Message, Options, Room, SendReceipt, SyncSource};
use mx_test_homeserver::Homeserver;
use ruma::OwnedUserId;
use serde_json::json;
use tempfile::TempDir;

/// A homeserver whose test fails when something happened that never may. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct World(Arc<Guard>);

#[derive(Debug)]
struct Guard {
    server: Homeserver,
    id: usize,
    listens: bool,
    directories: Mutex<Vec<Arc<TempDir>>>,
    _watch: watchdog::Watch,
}

impl World {
    /// A homeserver of its own.
    pub(crate) fn new() -> Self {
        Self::of(Homeserver::new())
    }

    /// Watch this homeserver.
    pub(crate) fn of(server: Homeserver) -> Self {
        Self::watch(server, true, watchdog::PATIENCE)
    }

    /// Watch this homeserver, and not the log: for stories that are told some thousand times.
    pub(crate) fn quiet(server: Homeserver) -> Self {
        Self::watch(server, false, watchdog::PATIENCE)
    }

    /// Watch this homeserver, and hang after `patience`.
    pub(crate) fn watch(server: Homeserver, listens: bool, patience: Duration) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = NEXT.fetch_add(1, Ordering::SeqCst);
        if listens {
            leaks::listen();
        }
        Self(Arc::new(Guard {
            server,
            id,
            listens,
            directories: Mutex::default(),
            _watch: watchdog::Watch::new(id, patience),
        }))
    }

    /// A text that nobody may see. It is looked for in requests, log lines, rows and files.
    pub(crate) fn canary(&self) -> String {
        let canary = format!("canary-{}", ruma::TransactionId::new());
        self.guard_plaintext(&canary);
        leaks::guard(self.0.id, "a plaintext", &canary);
        canary
    }

    /// Send text with a canary beside it.
    pub(crate) async fn say(&self, room: &Room, text: &str) -> mx_e2ee::Result<SendReceipt> {
        let content = json!({"msgtype": "m.text", "body": text, "canary": self.canary()});
        room.send("m.room.message", content).await
    }

    /// Look for secrets in what an error says.
    pub(crate) fn examine(&self, error: &(impl Display + Debug)) {
        leaks::look(format!("{error} {error:?} {error:#?}").as_bytes(), "an error", false);
    }

    /// The files of this directory are looked at in the end. It stays until then.
    pub(crate) fn keep(&self, directory: &Arc<TempDir>) {
        let mut directories = self.0.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.push(Arc::clone(directory));
    }

    /// What happened so far on the wire that never may.
    fn assert_nothing_violated(&self) {
        let violations = self.violations();
        let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
        assert!(words.is_empty(), "{}", words.join("\n"));
    }
}

impl Deref for World {
    type Target = Homeserver;

    fn deref(&self) -> &Homeserver {
        &self.0.server
    }
}

/// Every handle looks: a test may keep this one or that one.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_nothing_violated();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.listens {
            leaks::rest();
        }
        let directories = self.directories.get_mut().unwrap_or_else(PoisonError::into_inner);
        for directory in directories {
            leaks::look_at_files(directory.path());
        }
        let found = leaks::take(self.id);
        if !std::thread::panicking() {
            assert!(found.is_empty(), "I3, I4: {}", found.join("\n"));
        }
    }
}

/// A device whose disk outlives it.
pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) disk: MemoryDisk,
    pub(crate) directory: Arc<TempDir>,
    server: World,
}

pub(crate) fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

/// A client in the making: on this server, with this disk.
pub(crate) fn builder(server: &Homeserver, disk: &MemoryDisk) -> ClientBuilder {
    Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .options(options(server))
        .backend(Arc::new(leaks::Watched(Memory::open(disk).unwrap())), key())
}

/// How devices of a homeserver behave: they slide where it offers that.
pub(crate) fn options(server: &Homeserver) -> Options {
    let mut options = Options::default();
    if server.offers_sliding_sync() {
        options.sync_source = SyncSource::SlidingWhereOffered;
    }
    options
}

impl Device {
    /// The room keys that are on this device.
    pub(crate) async fn room_keys(&self) -> Vec<InboundGroupSession> {
        let store = self.client.orchestrator().store();
        store.get_inbound_group_sessions().await.unwrap()
    }

    /// Register where needed, and log in as a new device.
    pub(crate) async fn new(server: &Homeserver, name: &str) -> Self {
        let _user: OwnedUserId = server.register(name, "password");
        let disk = MemoryDisk::new();
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let world = World::of(server.clone());
        world.keep(&directory);
        let client = builder(server, &disk)
            .directory(directory.path())
            .login(name, "password")
            .await
            .unwrap();
        Self {
            client,
            disk,
            directory,
            server: world,
        }
    }

    /// The process is killed: nothing is closed, only the operating system lets the lock go.
    pub(crate) async fn kill_and_open(self) -> Self {
        let options = options(&self.server);
        self.kill_and_open_with(options).await
    }

    /// The same, and what is opened again behaves like this.
    pub(crate) async fn kill_and_open_with(self, options: Options) -> Self {
        let Self {
            client,
            disk,
            directory,
            server,
        } = self;
        drop(client);
        // The runtime still joins the task of the last unit.
        for _ in 0..1000 {
            if let Ok(free) = Memory::open(&disk) {
                drop(free);
                break;
            }
            tokio::task::yield_now().await;
        }
        let client = builder(&server, &disk)
            .directory(directory.path())
            .options(options)
            .open()
            .await
            .unwrap();
        Self {
            client,
            disk,
            directory,
            server,
        }
    }

    /// What is there now, without waiting: messages only.
    pub(crate) async fn messages(&self) -> Vec<Message> {
        let events = self.events().await;
        events
            .into_iter()
            .filter_map(|event| {
                if let Event::Message(message) = event {
                    Some(message)
                } else {
                    None
                }
            })
            .collect()
    }

    /// What is there now, without waiting. It is acknowledged.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            let events = self.client.receive(Duration::ZERO).await.unwrap();
            if events.is_empty() {
                return all;
            }
            all.extend(events);
        }
    }

    pub(crate) async fn bodies(&self) -> Vec<String> {
        self.messages()
            .await
            .iter()
            .map(|message| message.body().unwrap_or_default().to_owned())
            .collect()
    }
}

/// Two devices in an encrypted room.
pub(crate) struct Pair {
    pub(crate) server: World,
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    pub(crate) room: Room,
    pub(crate) bobs_room: Room,
}

pub(crate) async fn pair() -> Pair {
    pair_on(World::new()).await
}

/// A pair that syncs, and one whose syncs slide.
pub(crate) async fn both() -> [Pair; 2] {
    [pair().await, sliding_pair().await]
}

pub(crate) async fn sliding_pair() -> Pair {
    let server = World::new();
    server.offer_sliding_sync();
    pair_on(server).await
}

async fn pair_on(server: World) -> Pair {
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let room = alice
        .client
        .create_room(None, &[bob.client.user_id().to_owned()])
        .await
        .unwrap();
    let bobs_room = bob.client.join(room.id().as_str()).await.unwrap();
    Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    }
}
