//! A disk that fails while to-device events are taken: row TD-42 of the catalogue, for every operation of a sync.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use matrix_sdk_crypto::store::CryptoStore as _;
use mx_crypto_store::backend::{Backend, BackendError, BackendErrorKind, Batch, Memory, MemoryDisk, Promises};
use mx_e2ee::Client;
use mx_test_homeserver::{EvilPeer, peer::OlmSession};
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use tempfile::TempDir;

use crate::{
    evil::{Evil, evil},
    world::{World, key},
};

/// A memory disk one of whose operations fails. All others work, after it too.
#[derive(Debug)]
struct Failing {
    inner: Memory,
    /// How many operations come before it; below zero, it is over.
    left: Arc<AtomicI64>,
}

impl Failing {
    fn operation(&self) -> Result<(), BackendError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(BackendError::new(BackendErrorKind::Io));
        }
        Ok(())
    }
}

#[async_trait]
impl Backend for Failing {
    fn promises(&self) -> Promises {
        self.inner.promises()
    }
    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.operation()?;
        self.inner.get(row).await
    }
    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        self.operation()?;
        self.inner.scan(prefix, after, limit).await
    }
    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        self.operation()?;
        self.inner.commit(batch).await
    }
    async fn compact(&self) -> Result<(), BackendError> {
        self.inner.compact().await
    }
    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.inner.size_bytes().await
    }
    async fn close(&self) -> Result<(), BackendError> {
        self.inner.close().await
    }
}

/// Open alice's device on her disk, whose operations count from then on.
async fn open(evil: &Outside, operations: i64) -> (Client, Arc<AtomicI64>) {
    let left = Arc::new(AtomicI64::new(i64::MAX));
    for _ in 0..1000 {
        let Ok(inner) = Memory::open(&evil.disk) else {
            // The runtime still joins the task of the last unit.
            tokio::task::yield_now().await;
            continue;
        };
        let backend = Arc::new(Failing {
            inner,
            left: Arc::clone(&left),
        });
        let client = Client::builder()
            .homeserver("http://localhost")
            .transport(evil.server.transport())
            .backend(backend, key())
            .directory(evil.directory.path())
            .open()
            .await
            .unwrap();
        left.store(operations, Ordering::SeqCst);
        return (client, left);
    }
    unreachable!("the disk stays locked")
}

/// Everything but alice's process.
struct Outside {
    server: World,
    bob: EvilPeer,
    olm: OlmSession,
    room: OwnedRoomId,
    user: OwnedUserId,
    device: OwnedDeviceId,
    disk: MemoryDisk,
    directory: Arc<TempDir>,
}

impl Outside {
    fn of(evil: Evil) -> Self {
        Self {
            server: evil.server,
            bob: evil.bob,
            olm: evil.olm,
            room: evil.room.id().to_owned(),
            user: evil.alice.client.user_id().to_owned(),
            device: evil.alice.client.device_id().to_owned(),
            disk: evil.alice.disk.clone(),
            directory: Arc::clone(&evil.alice.directory),
        }
    }

    /// Put the keys of so many sessions into alice's queue: their ids.
    fn queue(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            let session = self.bob.megolm_session(&self.room);
            let envelope = self.bob.envelope(&self.olm, "m.room_key", session.room_key());
            let event = self.bob.olm_event(&self.olm, &envelope);
            self.server.queue_to_device(&self.user, &self.device, vec![event]);
            ids.push(session.session_id());
        }
        ids
    }

    /// How many of the keys are there, and the token of the next sync.
    async fn found(&self, client: &Client, ids: &[String]) -> (usize, Option<String>) {
        let store = client.orchestrator().store();
        let mut found = 0;
        for id in ids {
            let key = store.get_inbound_group_session(&self.room, id).await.unwrap();
            found += usize::from(key.is_some());
        }
        (found, store.next_batch_token().await.unwrap())
    }
}

const EVENTS: usize = 5;
/// More operations than a sync needs.
const MOST: i64 = 400;

#[tokio::test]
async fn td_42_a_store_error_fails_the_whole_sync_and_loses_nothing() {
    let mut outside = Outside::of(evil().await);
    let (mut undone, mut done) = (0, 0);
    for operations in 0..MOST {
        let ids = outside.queue(EVENTS);
        let (client, _) = open(&outside, i64::MAX).await;
        let (_, before) = outside.found(&client, &ids).await;
        drop(client);
        let (client, left) = open(&outside, operations).await;
        let synced = client.orchestrator().sync(Duration::ZERO).await;
        let reached = left.load(Ordering::SeqCst) < 0;
        drop(client);
        // Another process, on the disk that works again.
        let (client, _) = open(&outside, i64::MAX).await;
        let (found, token) = outside.found(&client, &ids).await;
        match &synced {
            Ok(summary) => assert_eq!((found, summary.to_device_rejected), (EVENTS, 0), "at {operations}"),
            Err(error) => {
                assert!(error.code().starts_with("store"), "at {operations}: {error}");
                assert!(found == 0 || found == EVENTS, "at {operations}: {found}");
            }
        }
        assert_eq!(
            token == before,
            found == 0,
            "at {operations}: keys and token go together"
        );
        if found == 0 {
            undone += 1;
        } else {
            done += 1;
        }
        client.orchestrator().sync(Duration::ZERO).await.unwrap();
        assert_eq!(outside.found(&client, &ids).await.0, EVENTS, "at {operations}");
        drop(client);
        if !reached {
            break;
        }
    }
    assert!(
        (3..MOST).contains(&undone),
        "{undone} syncs were undone, {done} were not"
    );
}
