//! A disk that dies at its n-th commit, for every n that a story reaches: before the write, or after it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use mx_crypto_store::backend::{Backend, BackendError, BackendErrorKind, Batch, Memory, MemoryDisk, Promises};
use mx_e2ee::{Client, Event};
use mx_test_homeserver::Homeserver;

use crate::world::{Device, Pair, key, pair};

#[derive(Debug)]
struct Dying {
    inner: Memory,
    /// How many commits are left.
    left: AtomicI64,
    /// The last one is written, and nobody is told.
    after: bool,
}

impl Dying {
    fn alive(&self) -> Result<(), BackendError> {
        if self.left.load(Ordering::SeqCst) < 0 {
            Err(BackendError::new(BackendErrorKind::Io))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl Backend for Dying {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.alive()?;
        self.inner.get(row).await
    }
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        self.alive()?;
        self.inner.scan(prefix, after, limit).await
    }
    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.alive()?;
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return self.inner.commit(batch).await;
        }
        if self.after {
            self.inner.commit(batch).await?;
        }
        Err(BackendError::new(BackendErrorKind::Io))
    }
    async fn compact(&self) -> Result<(), BackendError> {
        self.alive()?;
        self.inner.compact().await
    }
    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.inner.size_bytes().await
    }
    async fn close(&self) -> Result<(), BackendError> {
        self.inner.close().await
    }
}

/// Open a device on its disk, which dies after `commits`. `None`: it died while it was opened.
async fn open(
    server: &Homeserver,
    disk: &MemoryDisk,
    directory: &std::path::Path,
    commits: i64,
    after: bool,
) -> Option<Client> {
    for _ in 0..1000 {
        let Ok(inner) = Memory::open(disk) else {
            tokio::task::yield_now().await;
            continue;
        };
        let backend = Arc::new(Dying {
            inner,
            left: AtomicI64::new(commits),
            after,
        });
        let builder = Client::builder()
            .homeserver("http://localhost")
            .transport(server.transport());
        return builder.backend(backend, key()).directory(directory).open().await.ok();
    }
    None
}

/// Until the story needs no more commits than it has, it dies at each of them, one after the other.
const MOST: i64 = 40;

async fn receiving(commits: i64, after: bool) -> bool {
    let Pair { server, bob, room, .. } = pair().await;
    bob.events().await;
    for text in ["one", "two", "three"] {
        room.send_text(text).await.unwrap();
    }
    let Device {
        client,
        disk,
        directory,
        ..
    } = bob;
    drop(client);
    let mut read: Vec<String> = Vec::new();
    let mut died = true;
    if let Some(client) = open(&server, &disk, directory.path(), commits, after).await {
        died = loop {
            match client.receive(Duration::ZERO).await {
                Ok(events) if events.is_empty() => break false,
                Ok(events) => read.extend(bodies(&events)),
                Err(_) => break true,
            }
        };
    }
    let client = open(&server, &disk, directory.path(), i64::MAX, false).await.unwrap();
    loop {
        let events = client.receive(Duration::ZERO).await.unwrap();
        if events.is_empty() {
            break;
        }
        read.extend(bodies(&events));
    }
    // At least once, in order, and never again after an acknowledgement: a repeat is the whole batch or nothing.
    let mut distinct = read.clone();
    distinct.dedup();
    let all = ["one", "two", "three"];
    let batches = distinct.len() / all.len();
    assert_eq!(distinct, all.repeat(batches), "commit {commits}, after {after}");
    assert!(
        batches == 1 || (batches == 2 && died),
        "commit {commits}, after {after}: {read:?}"
    );
    died
}

fn bodies(events: &[Event]) -> Vec<String> {
    let body = |event: &Event| {
        if let Event::Message(message) = event {
            message.body().map(str::to_owned)
        } else {
            None
        }
    };
    events.iter().filter_map(body).collect()
}

#[tokio::test]
async fn a_receiver_whose_disk_dies_at_any_commit_loses_nothing() {
    for after in [false, true] {
        let mut reached = 0;
        for commits in 0..MOST {
            if !receiving(commits, after).await {
                break;
            }
            reached += 1;
        }
        assert!((2..MOST).contains(&reached), "the story has {reached} commits");
    }
}

async fn sending(commits: i64, after: bool) -> bool {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    let Device {
        client,
        disk,
        directory,
        ..
    } = alice;
    drop(client);
    let mut confirmed = Vec::new();
    let mut died = true;
    if let Some(client) = open(&server, &disk, directory.path(), commits, after).await {
        died = false;
        for text in ["one", "two"] {
            match client.room(&room_id).send_text(text).await {
                Ok(_) => confirmed.push(text.to_owned()),
                Err(_) => died = true,
            }
        }
    }
    let client = open(&server, &disk, directory.path(), i64::MAX, false).await.unwrap();
    client.room(&room_id).send_text("last").await.unwrap();
    let read = bob.bodies().await;
    let distinct: BTreeSet<&String> = read.iter().collect();
    assert_eq!(
        distinct.len(),
        read.len(),
        "nothing twice: commit {commits}, after {after}: {read:?}"
    );
    assert_eq!(read.last().map(String::as_str), Some("last"));
    for text in confirmed {
        assert!(
            read.contains(&text),
            "{text} was confirmed: commit {commits}, after {after}: {read:?}"
        );
    }
    no_index_twice(&server, &room_id);
    died
}

fn no_index_twice(server: &Homeserver, room_id: &ruma::RoomId) {
    // No index of a ratchet encrypted two things.
    let sent: Vec<(String, String)> = server
        .timeline(room_id)
        .iter()
        .filter_map(|event| {
            let content = &event["content"];
            Some((
                content["session_id"].as_str()?.to_owned(),
                content["ciphertext"].as_str()?.to_owned(),
            ))
        })
        .collect();
    // The index is at the beginning of the ciphertext, which differs from its first byte on for another one.
    let heads: BTreeSet<(&str, String)> = sent
        .iter()
        .map(|(session, text)| (session.as_str(), text.chars().take(6).collect()))
        .collect();
    assert_eq!(heads.len(), sent.len(), "{sent:?}");
}

#[tokio::test]
async fn a_sender_whose_disk_dies_at_any_commit_uses_no_index_twice() {
    for after in [false, true] {
        let mut reached = 0;
        for commits in 0..MOST {
            if !sending(commits, after).await {
                break;
            }
            reached += 1;
        }
        assert!((4..MOST).contains(&reached), "the story has {reached} commits");
    }
}
