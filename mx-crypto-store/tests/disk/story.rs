//! What is done to a store while it is recorded, and what may be found in it afterwards.

use std::collections::BTreeMap;

use mx_crypto_store::backend::{Backend, BackendError, Batch};

use crate::recorder::{Disk, Event};

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// How many commits the story has.
pub(crate) const COMMITS: u64 = 14;
/// After these it compacts.
const COMPACTS: [u64; 2] = [5, 9];

/// Commit `number`: rows that are new, overwritten and removed, small ones and one of many pages.
pub(crate) fn batch(number: u64) -> Batch {
    let mut random = fastrand::Rng::with_seed(number);
    let mut value = |bytes: usize| {
        let mut value = vec![0; bytes];
        random.fill(&mut value);
        value
    };
    let mut batch = Batch::new().put("last", number.to_be_bytes());
    for row in 0..3 {
        batch = batch.put(format!("new/{number}/{row}"), value(200 + 900 * row));
        batch = batch.put(format!("hot/{row}"), value(700));
    }
    if number % 4 == 2 {
        batch = batch.put("large", value(20_000));
    }
    match number.checked_sub(3) {
        Some(old) => batch.delete(format!("new/{old}/1")),
        None => batch,
    }
}

/// What is there after the first so many commits.
pub(crate) fn after(commits: u64) -> Rows {
    let mut rows = Rows::new();
    for write in (1..=commits).flat_map(|number| batch(number).writes) {
        match write.value {
            Some(value) => rows.insert(write.row, value),
            None => rows.remove(&write.row),
        };
    }
    rows
}

/// How far a store came before an error: begun, acknowledged.
pub(crate) struct Told {
    pub(crate) begun: u64,
    pub(crate) acknowledged: u64,
    pub(crate) error: Option<BackendError>,
}

/// Tell the story until its end, or until an error.
pub(crate) async fn tell(backend: &dyn Backend, disk: &Disk) -> Told {
    let mut told = Told {
        begun: 0,
        acknowledged: 0,
        error: None,
    };
    for number in 1..=COMMITS {
        told.begun = number;
        disk.note(Event::Begin(number));
        told.error = backend.commit(batch(number)).await.err();
        if told.error.is_some() {
            return told;
        }
        told.acknowledged = number;
        disk.note(Event::Acknowledged(number));
        if COMPACTS.contains(&number) {
            told.error = backend.compact().await.err();
            if told.error.is_some() {
                return told;
            }
        }
    }
    told
}

/// How many commits a store has, where all of each is there and nothing else.
pub(crate) async fn found(backend: &dyn Backend) -> Result<u64, String> {
    let rows = backend.scan(b"", None, usize::MAX).await;
    let rows: Rows = rows
        .map_err(|error| format!("it cannot be read: {error:?}"))?
        .into_iter()
        .collect();
    let commits = match rows.get(b"last".as_slice()) {
        Some(last) => u64::from_be_bytes(last.as_slice().try_into().map_err(|_| "a value changed")?),
        None => 0,
    };
    if rows == after(commits) {
        Ok(commits)
    } else {
        Err(format!("commit {commits} is there by half"))
    }
}
