//! What no race of a peer explains.

use std::fmt;

/// A cell that ends with this failed for good: it is not played again, whoever the peer is.
#[derive(Debug)]
pub(crate) struct Inexcusable(pub(crate) String);

impl fmt::Display for Inexcusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Inexcusable {}
