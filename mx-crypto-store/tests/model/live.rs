//! A store that is open, over a backend that does what the plan says.

use std::sync::Arc;

use mx_crypto_store::{
    KeySource, PickleStore, StoreError, StoreKey,
    backend::{Backend, Batch, MemoryDisk},
};
use tokio::sync::OnceCell;

use super::{
    check::{self, Checked},
    faulty::{Faulty, Plan},
    home::{Home, Rows, rows},
    observe::observe,
    records::Eyes,
    reference::Reference,
};

/// A store that is open.
pub(crate) struct Live<H> {
    pub(crate) store: PickleStore,
    home: Arc<H>,
    /// Under the faults.
    raw: Arc<dyn Backend>,
}

/// Open what is on the disk.
pub(crate) async fn open<H: Home>(home: &Arc<H>, plan: &Arc<Plan<H>>) -> Result<Live<H>, StoreError> {
    let raw = home.open().await?;
    let backend = Faulty {
        inner: Arc::clone(&raw),
        home: Arc::clone(home),
        plan: Arc::clone(plan),
    };
    let key = KeySource::Bytes(StoreKey::from_bytes([7; 32]));
    let store = PickleStore::open(Arc::new(backend), key).await?;
    let home = Arc::clone(home);
    Ok(Live { store, home, raw })
}

/// What is on the disk of a new store. It is the same in a whole run, and `MX_STORE` makes it so in the next run too.
///
/// # Why
/// A store has an identity that it drew, under which the names of its rows are hashed: it decides in which order rows
/// come, and with that perhaps whether a case fails.
pub(crate) async fn first_rows() -> &'static Rows {
    static ROWS: OnceCell<Rows> = OnceCell::const_new();
    ROWS.get_or_init(async || {
        if let Ok(text) = std::env::var("MX_STORE") {
            return serde_json::from_str(&text).unwrap();
        }
        let live = open(&Arc::new(MemoryDisk::new()), &Plan::new()).await.unwrap();
        live.rows().await
    })
    .await
}

/// The disk of a new store.
pub(crate) async fn first<H: Home>() -> H {
    let home = H::empty();
    let raw = home.open().await.unwrap();
    let rows = first_rows().await.iter().cloned();
    let batch = rows.fold(Batch::new(), |batch, (row, value)| batch.put(row, value));
    raw.commit(batch).await.unwrap();
    raw.close().await.unwrap();
    home
}

impl<H: Home> Live<H> {
    /// What a killed process leaves.
    pub(crate) async fn image(&self) -> H {
        self.home.image(&*self.raw).await
    }

    /// What is on the disk.
    pub(crate) async fn rows(&self) -> Rows {
        rows(&*self.raw).await
    }

    /// The store is in this state, outside of any unit.
    pub(crate) async fn holds(&self, what: &str, reference: &mut Reference) -> Checked {
        same(what, &self.store, reference).await?;
        let records = Eyes::Store(&self.store).records().await;
        let records = records.map_err(|error| format!("{what}: records: {error:?}"))?;
        check::that(
            records.same(&reference.records),
            "the store holds the records that were committed",
        )
    }
}

/// All reads of a store.
pub(crate) async fn same(what: &str, store: &PickleStore, reference: &mut Reference) -> Checked {
    let found = observe(store, reference.may()).await;
    let found = found.map_err(|error| format!("{what}: a read failed: {error:?}"))?;
    check::same(what, reference.observation().await, &found)
}
