//! A `MemoryStore` of the engine under a microscope: what is written is listed, and what is asked for fails.

mod store;

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use matrix_sdk_crypto::{
    CryptoStoreError,
    olm::OutboundGroupSession,
    store::{CryptoStore as _, MemoryStore, types::Changes},
};
use ruma::SecondsSinceUnixEpoch;

type Answer<T> = Result<T, CryptoStoreError>;

/// What a machine leaves behind when it is dropped: the next one opens it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    inner: MemoryStore,
    writes: Mutex<Vec<String>>,
    /// After so many writes, nothing is written any more.
    left: Mutex<Option<usize>>,
    /// Operations that fail, by the beginning of their name, and how many calls of them succeed first.
    failing: Mutex<HashMap<&'static str, usize>>,
    /// How many seconds older than they are sessions say that they are.
    age: AtomicI64,
}

/// What is in a batch of changes, in words.
fn parts(changes: &Changes) -> String {
    let parts = [
        ("account_identity", changes.private_identity.is_some()),
        (
            "devices",
            !changes.devices.new.is_empty() || !changes.devices.changed.is_empty(),
        ),
        ("hashes", !changes.message_hashes.is_empty()),
        ("inbound", !changes.inbound_group_sessions.is_empty()),
        ("next_batch", changes.next_batch_token.is_some()),
        ("olm", !changes.sessions.is_empty()),
        ("outbound", !changes.outbound_group_sessions.is_empty()),
    ];
    let there = parts.into_iter().filter(|(_, there)| *there);
    there.map(|(name, _)| format!(" {name}")).collect()
}

fn broken() -> CryptoStoreError {
    CryptoStoreError::backend(std::io::Error::other("the disk is broken"))
}

impl Disk {
    /// What was written since the last call, one line a write.
    pub(crate) fn written(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }

    /// From now on, only this many writes reach the disk: the process is killed after them.
    pub(crate) fn die_after(&self, writes: usize) {
        *self.left.lock().unwrap() = Some(writes);
    }

    /// From now on, `operation` fails, after `successes` calls of it.
    pub(crate) fn fail(&self, operation: &'static str, successes: usize) {
        self.failing.lock().unwrap().insert(operation, successes);
    }

    /// Everything works again.
    pub(crate) fn mend(&self) {
        *self.left.lock().unwrap() = None;
        self.failing.lock().unwrap().clear();
    }

    /// Let all sessions and the fallback key be so many seconds older when they are read; less than zero is a clock that
    /// went back.
    pub(crate) fn age(&self, seconds: i64) {
        self.age.store(seconds, Ordering::SeqCst);
    }

    fn aged(&self, time: SecondsSinceUnixEpoch) -> SecondsSinceUnixEpoch {
        let seconds = i64::from(time.get()) - self.age.load(Ordering::SeqCst);
        SecondsSinceUnixEpoch(ruma::UInt::try_from(seconds).unwrap())
    }

    async fn aged_outbound(&self, session: Option<OutboundGroupSession>) -> Answer<Option<OutboundGroupSession>> {
        let Some(session) = session else { return Ok(None) };
        let account = self.inner.load_account().await?.unwrap();
        let mut pickle = session.pickle().await;
        pickle.creation_time = self.aged(pickle.creation_time);
        let keys = account.identity_keys().into();
        let device = account.device_id().to_owned();
        Ok(Some(OutboundGroupSession::from_pickle(device, keys, pickle)?))
    }

    fn read(&self, operation: &str) -> Answer<()> {
        let mut failing = self.failing.lock().unwrap();
        let due = failing.iter_mut().find(|(name, _)| operation.starts_with(*name));
        match due {
            Some((_, successes)) if *successes > 0 => *successes -= 1,
            Some(_) => return Err(broken()),
            None => {}
        }
        Ok(())
    }

    fn write(&self, operation: &str) -> Answer<()> {
        self.read(operation)?;
        if let Some(left) = self.left.lock().unwrap().as_mut() {
            *left = left.checked_sub(1).ok_or_else(broken)?;
        }
        self.writes.lock().unwrap().push(operation.to_owned());
        Ok(())
    }
}
