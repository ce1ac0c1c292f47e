//! One budget for what a homeserver counts together: what it refuses to one request, the others do not ask for.
//!
//! # Why not a limiter from a crate
//! `governor` is a good one for a limit that is known. A homeserver does not tell its limit: it says 429, and for how
//! long, and that has to hold for everybody who stands in line. The known limit that may come on top is a few lines.

mod budget;
mod line;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use tokio::time::Instant;

use self::{
    budget::{Limit, Rules},
    line::Line,
};
use crate::{
    Family, Transport,
    endpoint::enters,
    layer::{Answer, Job, Layer, for_the_exchange, transport},
    seen,
};

/// So many requests of a budget are under way at once, where nobody says otherwise: below what servers of HTTP/2 allow
/// on one connection.
const UNDER_WAY: usize = 64;
/// So many budgets are remembered before those are looked for that nobody needs any more.
const MANY: usize = 1024;

/// A transport whose requests wait for each other, in the order in which they came.
///
/// # What shares a budget
/// Requests of one [`Family`] to one homeserver with one access token. Logins and registrations have a budget of their
/// own: they have no token, and a homeserver refuses them much earlier than the rest of their family. Another token, as
/// after it was renewed, begins anew.
///
/// # What a 429 does
/// Nobody of its budget sends until the pause that it names is over, and then one after the other with some space
/// between, which doubles with every further 429 (those that were under way together count once) and shrinks with every
/// answer that is none: a thousand rooms that were told to wait do not come back at once. A pause of more than five
/// minutes is asked after every five minutes by one request, while the others go on waiting: one answer that is wrong, or
/// that is not the homeserver's own, does not stop a bot for a day.
///
/// No more than [64](Self::under_way) requests of a budget are under way at once, so that few are refused when it is too
/// much; long polls and files are not counted. A limit that is known can be [set](Self::limit).
///
/// # Who does not wait
/// A request that could not be sent early enough within its [`Deadline`](crate::Deadline), within the time of a
/// [`Retry`](crate::Retry) or [`Timeouts`](crate::Timeouts) around, or within [`patience`](Self::patience), is answered at
/// once: with a 429 of its own that has the pause which is left in `Retry-After`, or, where no 429 holds it back, with
/// [`Phase::Queue`](crate::Phase::Queue). Either way nothing was sent.
///
/// Inside [`Retry`](crate::Retry) it sees every attempt; what was refused stands in line again. Clones share the budgets.
///
/// ```
/// # use std::time::Duration;
/// # use mx_transport::{Family, RateLimit, Retry, Transport};
/// # fn example(client: impl Transport) {
/// // Ten at once, then one every two seconds, whatever the server would allow.
/// let limited = RateLimit::new(client).limit(Family::Rooms, 10, Duration::from_secs(2));
/// let transport = Retry::new(limited);
/// # drop(transport);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RateLimit<T> {
    inner: T,
    patience: Duration,
    under_way: usize,
    limits: BTreeMap<Family, Limit>,
    lines: Arc<Lines>,
}

impl<T: Transport> RateLimit<T> {
    /// Nothing is known of the homeserver's limits: they are learned.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            patience: Duration::from_secs(120),
            under_way: UNDER_WAY,
            limits: BTreeMap::new(),
            lines: Arc::default(),
        }
    }

    /// At most `burst` requests of a family's budget at once, and on average one in `every`. A burst of 0 is one of 1.
    #[must_use]
    pub fn limit(mut self, family: Family, burst: u32, every: Duration) -> Self {
        self.limits.insert(family, Limit::new(burst, every));
        self
    }

    /// How many requests of a budget are under way at once, but for long polls and files. 0 is 1. Default: 64.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mx_transport::{RateLimit, Transport};
    /// # fn example(client: impl Transport) {
    /// // A small homeserver: eight at once of each family, and nobody stands in line for more than a minute.
    /// let limited = RateLimit::new(client).under_way(8).patience(Duration::from_secs(60));
    /// # drop(limited);
    /// # }
    /// ```
    #[must_use]
    pub fn under_way(mut self, under_way: usize) -> Self {
        self.under_way = under_way.max(1);
        self
    }

    /// How long a request without a [`Deadline`](crate::Deadline) stands in line at most. Default: 2 minutes.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn rules(&self, job: &Job<'_>) -> Rules {
        let family = job.family();
        let is_long = matches!(family, Family::Sync | Family::Media) || !matches!(job, Job::Send(_));
        Rules {
            under_way: if is_long { usize::MAX } else { self.under_way },
            limit: self.limits.get(&family).copied(),
        }
    }

    /// When it is too late to send a request.
    fn latest(&self, job: &Job<'_>) -> Option<Instant> {
        let in_time = job.time_left().map(|left| left.saturating_sub(for_the_exchange(left)));
        let patience = match (job.deadline(), in_time) {
            (Some(_), Some(in_time)) => in_time,
            (_, in_time) => in_time.map_or(self.patience, |in_time| in_time.min(self.patience)),
        };
        Instant::now().checked_add(patience)
    }
}

transport!(RateLimit);

#[async_trait]
impl<T: Transport> Layer for RateLimit<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let family = job.family();
        let line = self.lines.of(job);
        let came = Instant::now();
        let turn = match line.turn(self.rules(job), self.latest(job)).await {
            Ok(turn) => turn,
            Err(refused) => return refused,
        };
        let waited = came.elapsed();
        if !waited.is_zero() {
            seen::waited(family, "rate_limit", waited);
            tracing::debug!(
                target: "mx_transport::rate_limit",
                family = family.name(),
                waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                "a request stood in line"
            );
            job.spend(waited);
        }
        let answer = job.run(&self.inner).await;
        turn.learn(family, &answer);
        answer
    }
}

/// Who is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    authority: String,
    /// A number that stands for the token in this process. Two tokens with one number would share a budget.
    login: Option<u64>,
    family: Family,
    enters: bool,
}

/// All lines, by who stands in them.
#[derive(Debug, Default)]
struct Lines {
    numbers: RandomState,
    lines: Mutex<HashMap<Key, Arc<Line>>>,
}

impl Lines {
    fn of(&self, job: &Job<'_>) -> Arc<Line> {
        let token = job.headers().get(AUTHORIZATION);
        let key = Key {
            authority: job.uri().authority().map(ToString::to_string).unwrap_or_default(),
            login: token.map(|token| self.numbers.hash_one(token.as_bytes())),
            family: job.family(),
            enters: enters(job.path()),
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&key) {
            return Arc::clone(line);
        }
        if lines.len() >= MANY {
            lines.retain(|_, line| Arc::strong_count(line) > 1 || line.is_needed());
        }
        Arc::clone(lines.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests;
