//! Records of our own, beside the engine's: what a unit does with them, and what they should be.

use std::collections::BTreeMap;

use mx_crypto_store::{Cursor, Family, PickleStore, Record, RecordId, Result, Unit};
use proptest::prelude::*;

use super::mutation::Answer;

const FAMILY: Family = Family::new("model");
const OTHER: Family = Family::new("other");
const NAMES: [(Family, &str); 3] = [(FAMILY, "one"), (FAMILY, "two"), (OTHER, "one")];

/// What a unit does with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordStep {
    Put {
        name: usize,
        value: u8,
    },
    Delete {
        name: usize,
    },
    /// A record at the next position.
    Append {
        value: u8,
    },
    /// A position that stays empty.
    Skip,
    DeletePosition {
        position: u64,
    },
    /// The first record that a scan finds.
    DeleteFirst,
    /// More records than an engine is asked for at once, at every third position.
    Fill {
        value: u8,
    },
}

/// Where they are filled in.
const FILLED: std::ops::Range<u64> = 1_000..1_900;

/// What the records should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    names: BTreeMap<usize, u8>,
    queue: BTreeMap<u64, u8>,
    next: u64,
}

fn named(name: usize) -> RecordId {
    RecordId::named(NAMES[name].0, &["names"], NAMES[name].1)
}

fn positioned(position: u64) -> RecordId {
    RecordId::sequence(FAMILY, &["queue"], position)
}

impl RecordStep {
    /// In the unit.
    pub(crate) async fn apply(self, unit: &Unit) -> Result<Answer> {
        match self {
            Self::Put { name, value } => unit.put(&named(name), &value)?,
            Self::Delete { name } => unit.delete(&named(name))?,
            Self::Append { value } => {
                let position = unit.next_sequence(FAMILY, &["queue"]).await?;
                unit.put(&positioned(position), &(position, value))?;
                return Ok(Answer::Position(position));
            }
            Self::Skip => return Ok(Answer::Position(unit.next_sequence(FAMILY, &["queue"]).await?)),
            Self::DeletePosition { position } => unit.delete(&positioned(position))?,
            Self::DeleteFirst => {
                if let Some(first) = unit.scan(FAMILY, &["queue"], None, 1).await?.first() {
                    unit.delete_at(&first.cursor)?;
                }
            }
            Self::Fill { value } => {
                for position in FILLED.step_by(3) {
                    unit.put(&positioned(position), &(position, value))?;
                }
            }
        }
        Ok(Answer::Done)
    }
}

impl Records {
    /// As it should be.
    pub(crate) fn apply(&mut self, step: RecordStep) -> Answer {
        match step {
            RecordStep::Put { name, value } => {
                self.names.insert(name, value);
            }
            RecordStep::Delete { name } => {
                self.names.remove(&name);
            }
            RecordStep::Append { value } => {
                let position = self.take_position();
                self.queue.insert(position, value);
                return Answer::Position(position);
            }
            RecordStep::Skip => return Answer::Position(self.take_position()),
            RecordStep::DeletePosition { position } => {
                self.queue.remove(&position);
            }
            RecordStep::DeleteFirst => {
                self.queue.pop_first();
            }
            RecordStep::Fill { value } => self.queue.extend(FILLED.step_by(3).map(|position| (position, value))),
        }
        Answer::Done
    }

    fn take_position(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Everything but the next position, which only a unit can tell by taking it.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.names == other.names && self.queue == other.queue
    }
}

/// What reads records: the unit, or the store beside it.
#[derive(Clone, Copy)]
pub(crate) enum Eyes<'a> {
    Unit(&'a Unit),
    Store(&'a PickleStore),
}

impl Eyes<'_> {
    async fn get(self, id: &RecordId) -> Result<Option<u8>> {
        match self {
            Self::Unit(unit) => unit.get(id).await,
            Self::Store(store) => store.record(id).await,
        }
    }

    async fn scan(self, family: Family, group: &str, after: Option<&Cursor>, limit: usize) -> Result<Vec<Record>> {
        match self {
            Self::Unit(unit) => unit.scan(family, &[group], after, limit).await,
            Self::Store(store) => store.scan(family, &[group], after, limit).await,
        }
    }

    /// All records, read one by one, by name, and page by page.
    pub(crate) async fn records(self) -> Result<Records> {
        let mut records = Records::default();
        for name in 0..NAMES.len() {
            if let Some(value) = self.get(&named(name)).await? {
                records.names.insert(name, value);
            }
        }
        for family in [FAMILY, OTHER] {
            let found = self.scan(family, "names", None, usize::MAX).await?.len();
            let expected = records.names.keys().filter(|&&name| NAMES[name].0 == family).count();
            assert_eq!(found, expected, "a scan finds what is found by name");
        }
        let mut after = None;
        loop {
            // Pages of two show what is between pages; where there are many records, larger ones do.
            let limit = if records.queue.len() < 8 { 2 } else { 200 };
            let page = self.scan(FAMILY, "queue", after.as_ref(), limit).await?;
            let Some(last) = page.last() else { break };
            assert!(page.len() <= limit, "a page is as long as was asked for");
            after = Some(last.cursor.clone());
            for record in page {
                let (position, value) = record.decode::<(u64, u8)>()?;
                let behind = records.queue.last_key_value().is_none_or(|(last, _)| *last < position);
                assert!(behind, "positions are scanned in their order");
                records.queue.insert(position, value);
            }
        }
        Ok(records)
    }
}

/// Any of them.
pub(crate) fn record_step() -> impl Strategy<Value = RecordStep> {
    prop_oneof![
        4 => (0..NAMES.len(), any::<u8>()).prop_map(|(name, value)| RecordStep::Put { name, value }),
        2 => (0..NAMES.len()).prop_map(|name| RecordStep::Delete { name }),
        4 => any::<u8>().prop_map(|value| RecordStep::Append { value }),
        1 => Just(RecordStep::Skip),
        1 => prop_oneof![0..4_u64, FILLED].prop_map(|position| RecordStep::DeletePosition { position }),
        1 => any::<u8>().prop_map(|value| RecordStep::Fill { value }),
        2 => Just(RecordStep::DeleteFirst),
    ]
}
