//! The cast of the tests of keys: alice under test with her clock in hand, and peers who sign anything.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use matrix_sdk_crypto::{
    OlmMachine,
    store::{CryptoStore, types::CrossSigningKeyExport},
};
use mx_crypto_store::{
    PickleStore, SealedStore,
    backend::{Memory, MemoryDisk},
};
use mx_e2ee::{
    Client, Clock, DeviceOutcome, DeviceReceipt, Error, Event, Options, Room, SendReceipt, UnusableReason,
    orchestrator, transport::Transport,
};
use mx_test_homeserver::{EvilPeer, Homeserver, peer::CrossSigning};
use ruma::{DeviceId, OwnedRoomId, UserId};
use serde_json::Value;

use crate::world::{World, builder, key};

/// When the tests begin, in milliseconds since the Unix epoch.
const START_MS: u64 = 1_790_000_000_000;

pub(crate) struct Cast {
    pub(crate) server: World,
    pub(crate) alice: Client,
    /// Bob's device `BDEV`, on bare vodozemac.
    pub(crate) bob: EvilPeer,
    pub(crate) room: Room,
    pub(crate) clock: Arc<AtomicU64>,
    disk: MemoryDisk,
    directory: Arc<tempfile::TempDir>,
}

/// What went out and what the store held at some moment.
pub(crate) struct Mark {
    exchanges: usize,
    key: Option<(String, u32)>,
}

fn options(clock: &Arc<AtomicU64>) -> Options {
    let clock = Arc::clone(clock);
    let mut options = Options::default();
    options.clock = Clock::from_fn(move || clock.load(Ordering::SeqCst));
    options
}

/// Log alice in through `transport`, with her clock in hand.
pub(crate) async fn log_in(
    server: &Homeserver,
    transport: Arc<dyn Transport>,
    disk: &MemoryDisk,
    directory: &std::path::Path,
    clock: &Arc<AtomicU64>,
) -> mx_e2ee::Result<Client> {
    let builder = builder(server, disk).transport(transport).options(options(clock));
    builder.directory(directory).login("alice", "password").await
}

impl Cast {
    /// Alice, and bob's device, which has published nothing, in an encrypted room.
    pub(crate) async fn fresh() -> Self {
        Self::fresh_with("bob", |server| server.transport()).await
    }

    /// As [`Cast::fresh`], with another name for bob and another way from alice to the homeserver.
    pub(crate) async fn fresh_with(bob: &str, way: impl FnOnce(&Homeserver) -> Arc<dyn Transport>) -> Self {
        let server = World::new();
        server.register("alice", "password");
        let (disk, directory) = (MemoryDisk::new(), Arc::new(tempfile::tempdir().unwrap()));
        server.keep(&directory);
        let clock = Arc::new(AtomicU64::new(START_MS));
        let alice = log_in(&server, way(&server), &disk, directory.path(), &clock)
            .await
            .unwrap();
        let bob = EvilPeer::new(&server, bob, "BDEV");
        let room = alice.create_room(None, &[bob.user().to_owned()]).await.unwrap();
        bob.join(room.id());
        let cast = Self {
            server,
            alice,
            bob,
            room,
            clock,
            disk,
            directory,
        };
        cast.sync().await;
        cast
    }

    /// Alice has sent bob's honest device a message.
    pub(crate) async fn acquainted() -> Self {
        let mut cast = Self::fresh().await;
        cast.bob.publish();
        cast.sync().await;
        assert_eq!(cast.send("hello").await.readable_by(), 1);
        cast.bob.receive();
        // That it was confirmed is noted with the next commit.
        cast.sync().await;
        cast
    }

    /// What a send trusts: alice has just looked.
    pub(crate) async fn sync(&self) {
        self.alice.sync().await.unwrap();
    }

    pub(crate) async fn send(&self, text: &str) -> SendReceipt {
        self.server.say(&self.room, text).await.unwrap()
    }

    /// Alice's clock moves on.
    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    pub(crate) fn device(&self) -> &orchestrator::Orchestrator {
        self.alice.orchestrator()
    }

    /// The process is killed, and starts again.
    pub(crate) async fn reopen(self) -> Self {
        self.reopen_with(|_| ()).await
    }

    /// As [`Cast::reopen`], with other options from then on.
    pub(crate) async fn reopen_with(self, change: impl FnOnce(&mut Options)) -> Self {
        self.again(false, change).await
    }

    /// As [`Cast::reopen`]; meanwhile alice's device was given the secrets of her cross-signing identity, as verification
    /// or recovery would give them.
    pub(crate) async fn with_secrets(self, identity: &CrossSigning) -> Self {
        let (user, device) = (self.alice.user_id().to_owned(), self.alice.device_id().to_owned());
        let disk = self.disk.clone();
        let secrets = CrossSigningKeyExport {
            master_key: Some(identity.master.to_base64()),
            self_signing_key: Some(identity.self_signing.to_base64()),
            user_signing_key: Some(identity.user_signing.to_base64()),
        };
        let closed = self.close().await;
        let store = PickleStore::open(Arc::new(Memory::open(&disk).unwrap()), key())
            .await
            .unwrap();
        let unit = store.begin().await.unwrap();
        let machine = OlmMachine::with_store(&user, &device, store.clone(), None)
            .await
            .unwrap();
        machine.import_cross_signing_keys(secrets).await.unwrap();
        unit.commit().await.unwrap();
        drop(machine);
        store.shutdown().await.unwrap();
        drop(store);
        closed.open(false, |_| ()).await
    }

    /// The process is killed, and the same device logs in again.
    pub(crate) async fn log_in_again(self) -> Self {
        self.again(true, |_| ()).await
    }

    /// The process is stopped, and its store goes on as an import of its export.
    pub(crate) async fn imported(self) -> Self {
        let file = self.directory.path().join("export");
        self.device().store().sealed().export(&file, &key()).await.unwrap();
        let mut closed = self.close().await;
        closed.disk = MemoryDisk::new();
        let backend = Arc::new(Memory::open(&closed.disk).unwrap());
        let store = SealedStore::import(&file, &key(), backend, &key()).await.unwrap();
        store.shutdown().await.unwrap();
        drop(store);
        closed.open(false, |_| ()).await
    }

    async fn again(self, log_in: bool, change: impl FnOnce(&mut Options)) -> Self {
        self.close().await.open(log_in, change).await
    }

    /// The process is killed.
    async fn close(self) -> Closed {
        let Self {
            server,
            alice,
            bob,
            room,
            clock,
            disk,
            directory,
        } = self;
        let room = room.id().to_owned();
        drop(alice);
        wait_until_free(&disk).await;
        Closed {
            server,
            bob,
            room,
            clock,
            disk,
            directory,
        }
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        loop {
            let events = self.alice.receive(std::time::Duration::ZERO).await.unwrap();
            if events.is_empty() {
                return all;
            }
            all.extend(events);
        }
    }

    /// What bob can read of the room, oldest first.
    pub(crate) fn read_by(&self, peer: &mut EvilPeer) -> Vec<String> {
        peer.receive();
        let encrypted = self.server.timeline(self.room.id()).into_iter();
        encrypted
            .filter(|event| event["type"] == "m.room.encrypted")
            .filter_map(|event| peer.decrypt_event(&event))
            .map(|event| event.payload["content"]["body"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    pub(crate) async fn mark(&self) -> Mark {
        Mark {
            exchanges: self.server.log().len(),
            key: self.room_key().await,
        }
    }

    /// The room's key in the store, and its next index.
    pub(crate) async fn room_key(&self) -> Option<(String, u32)> {
        let store = self.device().store();
        let session = store.get_outbound_group_session(self.room.id()).await.unwrap()?;
        Some((session.session_id().to_owned(), session.message_index().await))
    }

    /// Alice's requests since `mark`, by method and a piece of the path.
    pub(crate) fn requests(&self, mark: &Mark, method: &str, path: &str) -> Vec<mx_test_homeserver::Exchange> {
        let log = self.server.log().into_iter().skip(mark.exchanges);
        log.filter(|exchange| {
            exchange.user.as_deref() == Some("@alice:localhost")
                && exchange.method == method
                && exchange.path.contains(path)
        })
        .collect()
    }

    /// Nothing was sent since `mark`, and the room's key stands where it stood.
    pub(crate) async fn assert_refused(&self, mark: &Mark) {
        assert_eq!(
            self.requests(mark, "PUT", "/sendToDevice/").len(),
            0,
            "to-device messages"
        );
        assert_eq!(self.requests(mark, "PUT", "/send/").len(), 0, "events");
        assert_eq!(self.room_key().await, mark.key, "the room key");
    }

    /// A send is refused, and nothing else happened.
    pub(crate) async fn refused(&self) -> Error {
        let mark = self.mark().await;
        let error = self.server.say(&self.room, "never").await.unwrap_err();
        self.server.examine(&error);
        self.assert_refused(&mark).await;
        error
    }

    /// A send is refused because nobody could read it: what is wrong with each device.
    pub(crate) async fn nobody_reached(&self) -> Vec<(String, DeviceOutcome)> {
        match self.refused().await {
            Error::Orchestrator(orchestrator::Error::NoUsableRecipients { room, devices, .. }) => {
                assert_eq!(room, self.room.id());
                devices.iter().map(named).collect()
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// Whether alice's store knows the device.
    pub(crate) async fn knows(&self, user: &UserId, device: &DeviceId) -> bool {
        self.device().store().get_device(user, device).await.unwrap().is_some()
    }

    /// How many Olm sessions alice's store has with this Curve25519 key.
    pub(crate) async fn sessions_with(&self, curve25519: &str) -> usize {
        let sessions = self.device().store().get_sessions(curve25519).await.unwrap();
        sessions.map_or(0, |sessions| sessions.len())
    }

    /// Up to where the store has taken syncs.
    pub(crate) async fn next_batch(&self) -> Option<String> {
        self.device().store().next_batch_token().await.unwrap()
    }

    /// Whether the user's devices are still to be asked about.
    pub(crate) async fn is_dirty(&self, user: &UserId) -> bool {
        let tracked = self.device().store().load_tracked_users().await.unwrap();
        tracked.iter().any(|tracked| tracked.user_id == user && tracked.dirty)
    }

    /// Rewrite the JSON of every answer whose path holds `path`.
    pub(crate) fn rewrite(&self, path: &str, change: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.server.rewrite(path, move |_, response| {
            let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) else {
                return response;
            };
            change(&mut body);
            response.map(|_| body.to_string().into())
        });
    }
}

/// The runtime still joins the task of the last unit.
async fn wait_until_free(disk: &MemoryDisk) {
    for _ in 0..1000 {
        if let Ok(free) = Memory::open(disk) {
            drop(free);
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The cast while alice's process does not run.
struct Closed {
    server: World,
    bob: EvilPeer,
    room: OwnedRoomId,
    clock: Arc<AtomicU64>,
    disk: MemoryDisk,
    directory: Arc<tempfile::TempDir>,
}

impl Closed {
    async fn open(self, log_in: bool, change: impl FnOnce(&mut Options)) -> Cast {
        let Self {
            server,
            bob,
            room,
            clock,
            disk,
            directory,
        } = self;
        let mut options = options(&clock);
        change(&mut options);
        let builder = builder(&server, &disk).options(options).directory(directory.path());
        let alice = if log_in {
            builder.login("alice", "password").await.unwrap()
        } else {
            builder.open().await.unwrap()
        };
        let room = alice.room(&room);
        Cast {
            server,
            alice,
            bob,
            room,
            clock,
            disk,
            directory,
        }
    }
}

pub(crate) fn named(receipt: &DeviceReceipt) -> (String, DeviceOutcome) {
    (receipt.device_id.to_string(), receipt.outcome.clone())
}

pub(crate) fn outcomes(receipt: &SendReceipt) -> Vec<(String, DeviceOutcome)> {
    receipt.devices.iter().map(named).collect()
}

pub(crate) fn rejected(device: &str, reason: UnusableReason) -> (String, DeviceOutcome) {
    (device.to_owned(), DeviceOutcome::Rejected { reason })
}
