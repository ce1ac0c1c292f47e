//! What a peer read, could not read and was told, across all its processes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;

/// Longer than a message takes anywhere, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a device read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Each reading of each event.
    read: HashMap<String, Vec<Value>>,
    unreadable: HashMap<String, Value>,
    /// Everything else.
    told: Vec<Value>,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, line: Value) {
        let id = |event: &Value| event["id"].as_str().unwrap_or_default().to_owned();
        if let Some(read) = line.get("read") {
            self.state().read.entry(id(read)).or_default().push(read.clone());
        } else if let Some(unreadable) = line.get("unreadable") {
            self.state().unreadable.insert(id(unreadable), unreadable.clone());
        } else {
            self.state().told.push(line);
        }
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// Wait until something is so.
    pub(crate) async fn until<T>(&self, within: Duration, mut found: impl FnMut(&Self) -> Option<T>) -> Option<T> {
        let mut changes = self.0.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = found(self) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, waiting).await.ok().flatten()
    }

    /// Wait until an event was read.
    pub(crate) async fn read(&self, event: &str) -> Option<Value> {
        self.until(PATIENCE, |ledger| ledger.readings(event).into_iter().next())
            .await
    }

    /// Wait until an event came and could not be read.
    pub(crate) async fn cannot_read(&self, event: &str) -> Option<Value> {
        self.until(PATIENCE, |ledger| ledger.unreadable(event)).await
    }

    /// What was said about an event that could not be read.
    pub(crate) fn unreadable(&self, event: &str) -> Option<Value> {
        self.state().unreadable.get(event).cloned()
    }

    /// Each time that an event was read.
    pub(crate) fn readings(&self, event: &str) -> Vec<Value> {
        self.state().read.get(event).cloned().unwrap_or_default()
    }

    /// The events that were read with this text.
    pub(crate) fn with_body(&self, body: &str) -> Vec<String> {
        let state = self.state();
        let same = |readings: &Vec<Value>| readings.iter().any(|read| read["content"]["body"] == body);
        let found = state.read.iter().filter(|(_, readings)| same(readings));
        found.map(|(id, _)| id.clone()).collect()
    }

    /// How often an event was read once more.
    pub(crate) fn repeated(&self) -> usize {
        self.state()
            .read
            .values()
            .map(|readings| readings.len().saturating_sub(1))
            .sum()
    }

    /// What else it said, that has this name.
    pub(crate) async fn told(&self, name: &str) -> Option<Value> {
        let told = |ledger: &Self| ledger.state().told.iter().find_map(|line| line.get(name).cloned());
        self.until(PATIENCE, told).await
    }
}
