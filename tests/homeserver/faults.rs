//! Faults by name, and evil hooks: what a network and a hostile homeserver do.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::Method;

/// Something that goes wrong with one request.
///
/// It is for the next request whose path holds a piece of text; [`Fault::method`] and [`Fault::nth`] narrow that. It
/// happens once, and [`Fault::times`] makes it happen to the requests after that too.
///
/// ```
/// use mx_test_homeserver::{Fault, Homeserver};
///
/// let server = Homeserver::new();
/// server.fault(Fault::drop_after("/send/m.room.encrypted/"));
/// server.fault(Fault::status("/keys/claim", 429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":5}"#).nth(2));
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    path: String,
    method: Option<Method>,
    skip: usize,
    times: usize,
    pub(crate) kind: Kind,
}

/// What happens to the request.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    DropBefore,
    DropAfter,
    Status(u16, String),
    Truncate(usize),
    Body(String),
}

impl Fault {
    fn new(path: &str, kind: Kind) -> Self {
        Self {
            path: path.to_owned(),
            method: None,
            skip: 0,
            times: 1,
            kind,
        }
    }

    /// The request never arrives: nothing is processed, nothing answered.
    #[must_use]
    pub fn drop_before(path: &str) -> Self {
        Self::new(path, Kind::DropBefore)
    }

    /// The request is processed, and its answer never arrives.
    #[must_use]
    pub fn drop_after(path: &str) -> Self {
        Self::new(path, Kind::DropAfter)
    }

    /// The request is refused with this status and body, and not processed.
    #[must_use]
    pub fn status(path: &str, status: u16, body: &str) -> Self {
        Self::new(path, Kind::Status(status, body.to_owned()))
    }

    /// The request is processed, and the body of its answer ends after `bytes` bytes.
    #[must_use]
    pub fn truncate(path: &str, bytes: usize) -> Self {
        Self::new(path, Kind::Truncate(bytes))
    }

    /// The request is processed, and its answer has this body instead of its own.
    #[must_use]
    pub fn body(path: &str, body: &str) -> Self {
        Self::new(path, Kind::Body(body.to_owned()))
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// The `n`-th request that fits, counted from 1, instead of the first.
    #[must_use]
    pub fn nth(mut self, n: usize) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// This many requests, one after the other.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    fn fits(&self, method: &Method, path: &str) -> bool {
        self.times > 0 && path.contains(&self.path) && self.method.as_ref().is_none_or(|only| only == method)
    }
}

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub(crate) struct Plan(Vec<Fault>);

impl Plan {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Count this request for every fault that it fits, and take the first one that is due.
    pub(crate) fn take(&mut self, method: &Method, path: &str) -> Option<Kind> {
        let mut due = None;
        for fault in self.0.iter_mut().filter(|fault| fault.fits(method, path)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if due.is_none() {
                fault.times -= 1;
                due = Some(fault.kind.clone());
            }
        }
        self.0.retain(|fault| fault.times > 0);
        due
    }
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

#[cfg(test)]
mod tests {
    use super::{Fault, Kind, Plan};
    use http::Method;

    #[test]
    fn a_fault_waits_for_its_turn_and_happens_once() {
        let mut plan = Plan::default();
        plan.add(Fault::drop_before("/send/").method(Method::PUT).nth(2));
        assert!(plan.take(&Method::GET, "/send/").is_none());
        assert!(plan.take(&Method::PUT, "/sync").is_none());
        assert!(plan.take(&Method::PUT, "/send/").is_none());
        assert!(matches!(plan.take(&Method::PUT, "/send/"), Some(Kind::DropBefore)));
        assert!(plan.take(&Method::PUT, "/send/").is_none());
    }

    #[test]
    fn a_fault_repeats_and_lets_the_next_one_wait() {
        let mut plan = Plan::default();
        plan.add(Fault::drop_after("/sync").times(2));
        plan.add(Fault::body("/sync", "x"));
        assert!(matches!(plan.take(&Method::GET, "/sync"), Some(Kind::DropAfter)));
        assert!(matches!(plan.take(&Method::GET, "/sync"), Some(Kind::DropAfter)));
        assert!(matches!(plan.take(&Method::GET, "/sync"), Some(Kind::Body(_))));
        assert!(plan.take(&Method::GET, "/sync").is_none());
    }
}
