//! What a store should hold: the engine's own store in memory, and by its side what that one cannot tell.
//!
//! It cannot be cloned, so that a snapshot is the list of steps that led to it, taken again.

use std::collections::BTreeMap;

use matrix_sdk_crypto::store::{CryptoStore, MemoryStore};

use super::{
    mutation::{Answer, Mutation, Piece, changes},
    observe::{May, Observation, observe},
    pool,
    records::{RecordStep, Records},
};

/// One step of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Engine(Mutation),
    Record(RecordStep),
}

/// What makes a store one of the engine's: an account, and the device that is ours.
pub(crate) fn settled() -> [Step; 2] {
    [Mutation::Account(Some(0)), Mutation::Save(vec![Piece::DeviceNew(0)])].map(Step::Engine)
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    holder: usize,
    forever: bool,
    generation: u64,
}

/// A state that a store should be in.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    /// How the state came about.
    steps: Vec<Step>,
    /// Made from the steps when it is needed.
    memory: Option<MemoryStore>,
    leases: BTreeMap<usize, Lease>,
    pub(crate) records: Records,
    may: May,
    seen: Option<Observation>,
}

impl Reference {
    /// The same state, apart.
    pub(crate) fn fork(&self) -> Self {
        Self {
            steps: self.steps.clone(),
            memory: None,
            leases: self.leases.clone(),
            records: self.records.clone(),
            may: self.may,
            seen: self.seen.clone(),
        }
    }

    /// The same state, apart, from which it goes on while this one waits.
    pub(crate) fn go_on(&mut self) -> Self {
        let memory = self.memory.take();
        Self { memory, ..self.fork() }
    }

    async fn memory(&mut self) -> &MemoryStore {
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => {
                let memory = MemoryStore::new();
                for step in &self.steps {
                    save(&memory, step).await;
                }
                memory
            }
        };
        self.memory.insert(memory)
    }

    /// Take a step.
    pub(crate) async fn apply(&mut self, step: &Step) -> Answer {
        let answer = match step {
            Step::Record(step) => return self.records.apply(*step),
            // The engine's store reads the clock here. The trait says what holds without one.
            Step::Engine(Mutation::Lease { forever, key, holder }) => return self.lease(*forever, *key, *holder),
            Step::Engine(_) => save(self.memory().await, step).await,
        };
        let own = self.memory().await.get_device(pool::own().0, pool::own().1.into());
        let own_device = own.await.unwrap().is_some();
        self.may.account |= matches!(step, Step::Engine(Mutation::Account(Some(_))));
        self.may.own_device = self.may.account && own_device;
        self.steps.push(step.clone());
        self.seen = None;
        answer
    }

    fn lease(&mut self, forever: bool, key: usize, holder: usize) -> Answer {
        let generation = match self.leases.get(&key) {
            None => 1,
            Some(held) if held.holder == holder => held.generation,
            Some(held) if !held.forever => held.generation + 1,
            Some(_) => return Answer::Lease(None),
        };
        let lease = Lease {
            holder,
            forever,
            generation,
        };
        self.leases.insert(key, lease);
        Answer::Lease(Some(generation))
    }

    /// What may be asked of a store in this state.
    pub(crate) fn may(&self) -> May {
        self.may
    }

    /// What such a store answers.
    pub(crate) async fn observation(&mut self) -> &Observation {
        let may = self.may;
        let seen = match self.seen.take() {
            Some(seen) => seen,
            None => observe(self.memory().await, may).await.unwrap(),
        };
        self.seen.insert(seen)
    }

    /// Whether nobody can tell the two apart by reading.
    pub(crate) async fn same(&mut self, other: &mut Self) -> bool {
        self.records.same(&other.records) && self.observation().await == other.observation().await
    }
}

async fn save(memory: &MemoryStore, step: &Step) -> Answer {
    match step {
        // It takes "no account in these changes" for "there is no account any more". Changes are what changed.
        Step::Engine(Mutation::Account(None)) | Step::Record(_) => {}
        // And likewise for the private identity.
        Step::Engine(Mutation::Save(pieces)) if !pieces.iter().any(Piece::is_private_identity) => {
            let mut changes = changes(pieces);
            changes.private_identity = memory.load_identity().await.unwrap();
            memory.save_changes(changes).await.unwrap();
        }
        Step::Engine(mutation) => return mutation.apply(memory).await.unwrap(),
    }
    Answer::Done
}
