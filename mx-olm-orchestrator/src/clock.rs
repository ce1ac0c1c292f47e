//! Where the orchestrator reads the time, so that a test can hold it.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The wall clock, in milliseconds since the Unix epoch.
///
/// Nothing that is secret or unique depends on it: only deadlines of reports do.
///
/// ```
/// use mx_olm_orchestrator::{Clock, Options};
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
///
/// // A test that does not wait for the deadline of a report, but moves the clock.
/// let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
/// let mut options = Options::default();
/// options.clock = Clock::from_fn({ let now_ms = now_ms.clone(); move || now_ms.load(Ordering::SeqCst) });
/// now_ms.fetch_add(61_000, Ordering::SeqCst);
/// # drop(options);
/// ```
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The machine's clock.
    ///
    /// ```
    /// use mx_olm_orchestrator::{Clock, Options};
    ///
    /// // What the options have, unless a test says otherwise.
    /// let mut options = Options::default();
    /// options.clock = Clock::system();
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        }))
    }

    /// A clock of the caller's, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn from_fn(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Whether it is time for what was put off until `at_ms`. Nothing is put off by more than `longest_ms`: what lies twice as far
/// ahead was noted by a clock that was ahead itself, and would wait as long as that was.
pub(crate) const fn is_due(at_ms: u64, longest_ms: u64, now_ms: u64) -> bool {
    now_ms >= at_ms || at_ms.abs_diff(now_ms) > longest_ms.saturating_mul(2)
}
