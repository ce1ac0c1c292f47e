//! The store under test beside its reference: opened, killed, opened again, and compared.

use std::sync::Arc;

use matrix_sdk_crypto::store::CryptoStore;
use mx_crypto_store::{PickleStore, Submitted, Unit};

use super::{
    check::{self, Checked},
    faulty::{Fault, Fired, Plan},
    home::Home,
    live::{self, Live, open},
    records::Eyes,
    reference::{Reference, Step},
};

/// What a caller does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// In the unit that is open, or durably on its own.
    Step(Step),
    /// Every read.
    Read,
    Begin,
    /// The unit goes on its way to the disk, and nobody waits for it yet.
    Submit,
    Commit,
    Abort,
    Drop,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Do(Action),
    Faulty(Fault, Action),
    /// The process is killed.
    Kill,
    /// The store is shut down and opened again, with a fault perhaps.
    Reopen(Option<Fault>),
    /// The store is dropped and opened again, with a fault perhaps.
    Forget(Option<Fault>),
    /// Somebody else reads the disk.
    Peek,
}

/// A unit and what it should see.
pub(crate) struct Inside {
    pub(crate) unit: Unit,
    pub(crate) sees: Reference,
    /// It may not commit, and what it sees is not said.
    pub(crate) failed: bool,
}

/// The store and what it should be.
pub(crate) struct World<H> {
    home: Arc<H>,
    pub(crate) plan: Arc<Plan<H>>,
    /// `None` only while it is opened.
    live: Option<Live<H>>,
    pub(crate) inside: Option<Inside>,
    /// What is on the disk, if nothing is on its way there.
    pub(crate) disk: Reference,
    /// Units on their way to the disk, each with what is there when it has arrived.
    pub(crate) ahead: Vec<(Submitted, Reference)>,
    pub(crate) poisoned: bool,
    /// A write that failed took effect nevertheless: the state before it may be seen until the store is opened again.
    pub(crate) before: Option<Reference>,
    steps: usize,
}

impl<H: Home> World<H> {
    /// A new store.
    pub(crate) async fn begin() -> Checked<Self> {
        Self::open_first(live::first().await, None).await
    }

    /// A disk on which there is no store yet, opened with a fault.
    pub(crate) async fn begin_with(fault: Fault) -> Checked {
        Self::open_first(H::empty(), Some(fault)).await?.check().await
    }

    async fn open_first(home: H, fault: Option<Fault>) -> Checked<Self> {
        let mut world = Self {
            home: Arc::new(home),
            plan: Plan::new(),
            live: None,
            inside: None,
            disk: Reference::default(),
            ahead: Vec::new(),
            poisoned: false,
            before: None,
            steps: 0,
        };
        world.open(fault).await?;
        Ok(world)
    }

    /// One operation, and reads after it.
    pub(crate) async fn operate(&mut self, operation: &Operation) -> Checked {
        let alone = self.inside.is_none();
        match operation {
            Operation::Do(action) => self.act(action, None).await?,
            Operation::Faulty(fault, action) => self.act(action, Some(*fault)).await?,
            Operation::Kill => {
                if !H::ONE_MOMENT {
                    self.settle().await?;
                }
                let left = self.image().await?;
                self.begin_anew(left).await?;
            }
            Operation::Reopen(fault) => {
                self.inside = None;
                self.shut_down().await?;
                // What was submitted is finished first.
                self.settle().await?;
                self.open(*fault).await?;
            }
            Operation::Forget(fault) => {
                self.inside = None;
                self.settle().await?;
                self.open(*fault).await?;
            }
            Operation::Peek => self.peek().await?,
        }
        match operation {
            // Nothing happened.
            Operation::Do(Action::Submit | Action::Commit | Action::Abort | Action::Drop) if alone => Ok(()),
            Operation::Do(Action::Step(_) | Action::Begin | Action::Read) | Operation::Peek => {
                self.steps += 1;
                if self.steps.is_multiple_of(H::READ_EVERY) {
                    self.check().await
                } else {
                    Ok(())
                }
            }
            _ => self.check().await,
        }
    }

    pub(crate) fn store(&self) -> Checked<&PickleStore> {
        self.live
            .as_ref()
            .map(|live| &live.store)
            .ok_or_else(|| "no store is open".to_owned())
    }

    async fn image(&self) -> Checked<H> {
        match &self.live {
            Some(live) => Ok(live.image().await),
            None => Err("no store is open".to_owned()),
        }
    }

    /// The process was killed, and another one opens what it left.
    pub(crate) async fn begin_anew(&mut self, left: H) -> Checked {
        self.inside = None;
        self.live = None;
        self.home = Arc::new(left);
        // What the killed process had under way is none of the next one's business.
        self.plan = Plan::new();
        self.open(None).await?;
        let ahead = std::mem::take(&mut self.ahead).into_iter().map(|(_, state)| state);
        let Some(live) = &self.live else { return Ok(()) };
        // Units arrive in their order, each whole.
        let mut told = String::new();
        for mut state in std::iter::once(std::mem::take(&mut self.disk)).chain(ahead) {
            match live.holds("one of the states that a kill may leave", &mut state).await {
                Ok(()) => {
                    self.disk = state;
                    return Ok(());
                }
                Err(what) => told += &what,
            }
        }
        Err(told)
    }

    /// Wait until nothing is on its way to the disk.
    pub(crate) async fn settle(&mut self) -> Checked {
        for (submitted, state) in self.ahead.drain(..) {
            let durable = submitted.durable().await;
            durable.map_err(|error| format!("a submitted unit: {error:?}"))?;
            self.disk = state;
        }
        Ok(())
    }

    /// What whoever begins now sees.
    pub(crate) fn newest(&mut self) -> &mut Reference {
        self.ahead.last_mut().map_or(&mut self.disk, |(_, state)| state)
    }

    async fn shut_down(&self) -> Checked {
        let store = self.store()?;
        store.shutdown().await.map_err(|error| format!("shutdown: {error:?}"))?;
        let written = store.set_custom_value("after", vec![1]).await;
        check::that(written.is_err(), "a store that is shut down is not written")?;
        let read = store.next_batch_token().await;
        check::that(read.is_err(), "a store that is shut down is not read")
    }

    /// Open the disk, after the fault perhaps.
    async fn open(&mut self, fault: Option<Fault>) -> Checked {
        self.poisoned = false;
        self.before = None;
        self.live = None;
        if fault.is_some() {
            self.plan.arm(fault);
            let opened = tokio::select! {
                biased;
                opened = open(&self.home, &self.plan) => Some(opened),
                () = self.plan.hung.notified() => None,
            };
            let fired = self.plan.disarm();
            let failed = !matches!(opened, Some(Ok(_)));
            drop(opened);
            check::that(
                failed == fired.is_some(),
                "opening fails with the backend, and only then",
            )?;
            if let Some(Fired { left: Some(left), .. }) = fired {
                self.home = Arc::new(left);
            }
        }
        let live = open(&self.home, &self.plan).await;
        self.live = Some(live.map_err(|error| format!("the store does not open: {error:?}"))?);
        Ok(())
    }

    /// Nothing of the unit that is open is seen by others.
    async fn peek(&mut self) -> Checked {
        self.settle().await?;
        let others = Arc::new(self.image().await?);
        let live = open(&others, &Plan::new()).await;
        let live = live.map_err(|error| format!("a copy does not open: {error:?}"))?;
        live.holds("on the disk", &mut self.disk).await
    }

    /// Everything that can be read is what it should be.
    pub(crate) async fn check(&mut self) -> Checked {
        let Some(Live { store, .. }) = &self.live else {
            return Err("no store is open".to_owned());
        };
        check::that(
            store.is_poisoned() == self.poisoned,
            "a failed write poisons, and nothing else",
        )?;
        // While units arrive, what is on the disk changes between one read and the next.
        if self.ahead.is_empty() {
            outside(store, &self.disk, self.before.as_ref()).await?;
        }
        let Some(inside) = &mut self.inside else {
            let newest = self.ahead.last_mut().map_or(&mut self.disk, |(_, state)| state);
            let found = live::same("after it", store, newest).await;
            let (Err(found), Some(before)) = (&found, &mut self.before) else {
                return found;
            };
            // All of it, or nothing.
            return live::same("before it", store, before)
                .await
                .map_err(|other| format!("{found}\n{other}"));
        };
        if inside.failed {
            return Ok(());
        }
        let records = Eyes::Unit(&inside.unit).records().await;
        let records = records.map_err(|error| format!("records in the unit: {error:?}"))?;
        check::that(records.same(&inside.sees.records), "a unit sees its own records")?;
        live::same("in the unit", store, &mut inside.sees).await
    }
}

/// What is read beside the unit is what was committed.
async fn outside(store: &PickleStore, disk: &Reference, before: Option<&Reference>) -> Checked {
    // A clone is another handle on the same store.
    let records = Eyes::Store(&store.clone()).records().await;
    let records = records.map_err(|error| format!("records beside the unit: {error:?}"))?;
    check::that(
        records.same(&disk.records) || before.is_some_and(|before| records.same(&before.records)),
        "records beside the unit are those that were committed",
    )?;
    let owner = store.device().await.map_err(|error| format!("device: {error:?}"))?;
    let owned = |state: &Reference| state.may().account == owner.is_some();
    check::that(
        owned(disk) || before.is_some_and(owned),
        "the owner is the one that was committed",
    )
}
