//! What the tests share: a homeserver, devices on it, and disks that outlive them.

use std::{sync::Arc, time::Duration};

use mx_crypto_store::{
    KeySource, StoreKey,
    backend::{Memory, MemoryDisk},
};
use mx_e2ee::{Client, ClientBuilder, Event, Message, Room};
use mx_test_homeserver::Homeserver;
use ruma::OwnedUserId;

/// A device whose disk outlives it.
pub(crate) struct Device {
    pub(crate) client: Client,
    pub(crate) disk: MemoryDisk,
    pub(crate) directory: tempfile::TempDir,
    server: Homeserver,
}

pub(crate) fn key() -> KeySource {
    KeySource::Bytes(StoreKey::from_bytes([7; 32]))
}

/// A client in the making: on this server, with this disk.
pub(crate) fn builder(server: &Homeserver, disk: &MemoryDisk) -> ClientBuilder {
    Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .backend(Arc::new(Memory::open(disk).unwrap()), key())
}

impl Device {
    /// Register where needed, and log in as a new device.
    pub(crate) async fn new(server: &Homeserver, name: &str) -> Self {
        let _user: OwnedUserId = server.register(name, "password");
        let disk = MemoryDisk::new();
        let directory = tempfile::tempdir().unwrap();
        let client = builder(server, &disk)
            .directory(directory.path())
            .login(name, "password")
            .await
            .unwrap();
        Self {
            client,
            disk,
            directory,
            server: server.clone(),
        }
    }

    pub(crate) fn of(client: Client, disk: MemoryDisk, directory: tempfile::TempDir, server: &Homeserver) -> Self {
        Self {
            client,
            disk,
            directory,
            server: server.clone(),
        }
    }

    /// The process is killed: nothing is closed, only the operating system lets the lock go.
    pub(crate) async fn kill_and_open(self) -> Self {
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
    pub(crate) server: Homeserver,
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    pub(crate) room: Room,
    pub(crate) bobs_room: Room,
}

pub(crate) async fn pair() -> Pair {
    let server = Homeserver::new();
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
