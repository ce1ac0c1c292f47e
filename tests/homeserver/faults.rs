//! Faults by name, and evil hooks: what a network and a hostile homeserver do.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// What happens to one request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The request never arrives.
    DropBefore,
    /// The request is processed and its answer never arrives.
    DropAfter,
    /// This is answered, and the request is not processed.
    Answer(u16, String),
    /// The request is processed, and its answer ends after this many bytes.
    Truncate(usize),
    /// The request is processed and then answered like this.
    Replace(u16, String),
}

/// Which request a fault is for.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) path: String,
    pub(crate) skip: usize,
    pub(crate) fault: Fault,
}

/// What became of a request.
pub(crate) enum Outcome {
    Answer(http::Response<Bytes>),
    Dropped,
}

type Rewriting = dyn Fn(&http::Request<Bytes>, http::Response<Bytes>) -> http::Response<Bytes> + Send + Sync;

/// An evil hook: it rewrites answers.
#[derive(Clone)]
pub(crate) struct Hook {
    pub(crate) path: String,
    pub(crate) rewrite: Arc<Rewriting>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("path", &self.path).finish_non_exhaustive()
    }
}
