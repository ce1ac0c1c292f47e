//! Writes that are no unit's, and whose end may not be known.

use crate::layers::Core;

/// A write is under way: until it is known how it ended, memory may be behind the disk, and the store is poisoned.
#[derive(Debug)]
pub(crate) struct Unknown<'a>(Option<&'a Core>);

impl Unknown<'_> {
    pub(crate) fn known(mut self) {
        self.0 = None;
    }
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            core.poison();
        }
    }
}

impl Core {
    /// A write is under way that is not a unit's.
    pub(crate) const fn unknown(&self) -> Unknown<'_> {
        Unknown(Some(self))
    }
}
