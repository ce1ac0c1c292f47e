//! Faults by name, and evil hooks: what a network and a hostile homeserver do.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;

/// Something that goes wrong with one request.
///
/// It is for the next request whose path holds a piece of text (`""`: any); [`Fault::method`], [`Fault::nth`] and
/// [`Fault::request`] narrow that. It happens once; [`Fault::times`] makes it happen to the requests after that too, and
/// [`Fault::for_ever`] to all of them, until [`Homeserver::behave`](crate::Homeserver::behave).
///
/// ```
/// use std::time::Duration;
///
/// use mx_test_homeserver::{Fault, Homeserver};
///
/// let server = Homeserver::new();
/// server.fault(Fault::drop_after("/send/m.room.encrypted/"));
/// server.fault(Fault::status("/keys/claim", 429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":5}"#).nth(2));
/// server.fault(Fault::delay("/sync", Duration::from_secs(40)).for_ever());
/// // The seventh request that this homeserver gets in its life, whatever it is.
/// server.fault(Fault::duplicate("").request(7));
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    path: String,
    method: Option<Method>,
    at: Option<u64>,
    skip: usize,
    times: Times,
    pub(crate) kind: Kind,
}

/// How many requests a fault is still for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Left(usize),
    ForEver,
}

/// What happens to the request.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    DropBefore,
    DropAfter,
    Status(u16, String),
    Truncate(usize),
    Body(String),
    Delay(Duration),
    Duplicate,
}

impl Fault {
    fn new(path: &str, kind: Kind) -> Self {
        Self {
            path: path.to_owned(),
            method: None,
            at: None,
            skip: 0,
            times: Times::Left(1),
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

    /// The request is processed at once, and its answer arrives this much later, on tokio's clock: in a test with
    /// paused time nobody waits. The door without a socket gives up when the caller's deadline comes first.
    #[must_use]
    pub fn delay(path: &str, by: Duration) -> Self {
        Self::new(path, Kind::Delay(by))
    }

    /// The request is processed twice, as when a proxy repeats it, and the second answer arrives.
    #[must_use]
    pub fn duplicate(path: &str) -> Self {
        Self::new(path, Kind::Duplicate)
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

    /// The requests from the `k`-th on that the homeserver gets in its life, counted from 1 over all paths: what
    /// [`Homeserver::requests`](crate::Homeserver::requests) says after it. Together with [`times`](Self::times), the
    /// `k`-th and those that fit after it.
    #[must_use]
    pub fn request(mut self, k: u64) -> Self {
        self.at = Some(k);
        self
    }

    /// This many requests, one after the other.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Times::Left(times);
        self
    }

    /// Every request from then on, until the homeserver is told to behave.
    #[must_use]
    pub fn for_ever(mut self) -> Self {
        self.times = Times::ForEver;
        self
    }

    fn fits(&self, number: u64, method: &Method, path: &str) -> bool {
        self.times != Times::Left(0)
            && self.at.is_none_or(|at| number >= at)
            && path.contains(&self.path)
            && self.method.as_ref().is_none_or(|only| only == method)
    }
}

/// The faults that are still to happen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    faults: Vec<Fault>,
    /// As long as a sync waits at most.
    pub(crate) longest_wait: Option<Duration>,
    /// How many requests came so far.
    requests: u64,
}

impl Plan {
    pub(crate) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.faults.clear();
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Count this request for every fault that it fits, and take the first one that is due.
    pub(crate) fn take(&mut self, method: &Method, path: &str) -> Option<Kind> {
        self.requests += 1;
        let number = self.requests;
        let mut due = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.fits(number, method, path)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if due.is_none() {
                if let Times::Left(left) = &mut fault.times {
                    *left -= 1;
                }
                due = Some(fault.kind.clone());
            }
        }
        self.faults.retain(|fault| fault.times != Times::Left(0));
        due
    }
}

/// What became of a request.
pub(crate) enum Outcome {
    Answer(http::Response<Bytes>),
    Dropped,
}

/// What became of a request, and how much later the caller is told.
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    pub(crate) after: Duration,
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
    use std::time::Duration;

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

    #[test]
    fn a_fault_for_ever_lasts_and_the_next_one_waits_behind_it() {
        let mut plan = Plan::default();
        plan.add(Fault::delay("/sync", Duration::from_secs(1)).for_ever());
        plan.add(Fault::duplicate("/sync"));
        for _ in 0..100 {
            assert!(matches!(plan.take(&Method::GET, "/sync"), Some(Kind::Delay(_))));
        }
        assert!(plan.take(&Method::GET, "/versions").is_none());
        plan.clear();
        assert!(plan.take(&Method::GET, "/sync").is_none());
    }

    #[test]
    fn a_fault_finds_the_kth_request_of_all() {
        let mut plan = Plan::default();
        assert!(plan.take(&Method::GET, "/versions").is_none());
        plan.add(Fault::duplicate("").request(3));
        plan.add(Fault::drop_before("/sync").request(4).times(2));
        let mut seen = Vec::new();
        for path in ["/sync", "/login", "/login", "/sync", "/login", "/sync", "/sync"] {
            seen.push(plan.take(&Method::GET, path).map(|kind| format!("{kind:?}")));
        }
        let seen: Vec<Option<&str>> = seen.iter().map(Option::as_deref).collect();
        let dropped = Some("DropBefore");
        assert_eq!(seen, [None, Some("Duplicate"), None, dropped, None, dropped, None]);
        assert_eq!(plan.requests(), 8);
    }
}
