//! Rows that are written together, as they are encoded, and what is kept in memory of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::OwnedRoomId;
use serde::Serialize;
use zeroize::Zeroizing;

use super::decoded::{Kept, KnownInbound};
use crate::{Result, StoreError, layers::Plain, layout::Row, record::encode_failed, spread::Spread};

/// As much as nearly every record takes.
const ENCODED: usize = 8192;

/// What is kept in memory of something that was written.
pub(super) type Keep = Box<dyn FnOnce(&mut Kept) + Send>;

/// Rows with their new values; `None` removes one.
pub(super) type Writes = Vec<(Row, Option<Plain>)>;

/// Rows to be written together, and what is kept in memory of them.
#[derive(Default)]
pub(super) struct Rows {
    encoded: Encoded,
    keep: Vec<Keep>,
    /// The inbound sessions among them, which are kept: one may be saved twice in one call.
    pub(super) inbound: HashMap<Row, KnownInbound>,
    /// The rooms of the outbound sessions among them.
    pub(super) outbound: BTreeSet<OwnedRoomId>,
}

impl Rows {
    pub(super) fn json<T: Serialize + ?Sized>(&mut self, row: Row, value: &T) -> Result<()> {
        self.encoded.json(row, value)
    }

    pub(super) fn pickle<T: Serialize + ?Sized>(&mut self, row: Row, value: &T) -> Result<()> {
        self.encoded.pickle(row, value)
    }

    pub(super) fn bytes(&mut self, row: Row, value: Vec<u8>) {
        self.encoded.bytes(row, value);
    }

    pub(super) fn delete(&mut self, row: Row) {
        self.encoded.delete(row);
    }

    /// The rows of many records, encoded on all cores; they stay in their order.
    pub(super) fn of_many<T: Sync>(
        &mut self,
        spread: Spread,
        records: &[T],
        encode: impl Fn(&T, &mut Encoded) -> Result<()> + Sync,
    ) -> Result<()> {
        let parts = spread.over(records, |part| {
            let mut encoded = Encoded::default();
            part.iter().try_for_each(|record| encode(record, &mut encoded))?;
            Ok::<_, StoreError>(encoded.writes)
        });
        for writes in parts {
            self.encoded.writes.extend(writes?);
        }
        Ok(())
    }

    /// Once the rows are in a unit, keep this.
    pub(super) fn keep(&mut self, keep: impl FnOnce(&mut Kept) + Send + 'static) {
        self.keep.push(Box::new(keep));
    }

    /// The rows, and what is kept once they are in a unit. `None`: there are none.
    pub(super) fn into_writes(mut self) -> Option<(Writes, Vec<Keep>)> {
        let inbound = std::mem::take(&mut self.inbound);
        if !inbound.is_empty() {
            self.keep(|kept| {
                for (row, known) in inbound {
                    kept.put_inbound(row, known);
                }
            });
        }
        let writes = self.encoded.writes;
        (!writes.is_empty()).then_some((writes, self.keep))
    }
}

/// Rows as they are encoded: each value in a place that is used again, then in memory of just its size. A buffer that
/// grows with a value leaves copies of its beginning behind, and here they are keys.
pub(super) struct Encoded {
    writes: Writes,
    place: Zeroizing<Vec<u8>>,
}

impl Default for Encoded {
    fn default() -> Self {
        Self {
            writes: Writes::new(),
            place: Zeroizing::new(Vec::with_capacity(ENCODED)),
        }
    }
}

impl Encoded {
    pub(super) fn json<T: Serialize + ?Sized>(&mut self, row: Row, value: &T) -> Result<()> {
        self.place.clear();
        serde_json::to_writer(&mut *self.place, value).map_err(|_| encode_failed::<T>())?;
        self.placed(row);
        Ok(())
    }

    /// Pickles hold keys as arrays of bytes, which MessagePack writes in a quarter of JSON's space.
    pub(super) fn pickle<T: Serialize + ?Sized>(&mut self, row: Row, value: &T) -> Result<()> {
        self.place.clear();
        rmp_serde::encode::write_named(&mut *self.place, value).map_err(|_| encode_failed::<T>())?;
        self.placed(row);
        Ok(())
    }

    fn placed(&mut self, row: Row) {
        self.bytes(row, self.place.to_vec());
    }

    fn bytes(&mut self, row: Row, value: Vec<u8>) {
        self.writes.push((row, Some(Arc::new(Zeroizing::new(value)))));
    }

    pub(super) fn delete(&mut self, row: Row) {
        self.writes.push((row, None));
    }
}
