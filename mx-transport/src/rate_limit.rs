//! One budget for all requests of a family: what a homeserver refuses to one of them, the others do not ask for.
//!
//! # Why not a limiter from a crate
//! `governor` is a good one for a limit that is known. A homeserver does not tell its limit: it says 429, and for how
//! long, and that has to hold for everybody who stands in line. The known limit that may come on top is a few lines.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, header::RETRY_AFTER};
use tokio::time::Instant;

use crate::{
    Family, Phase, Transport, TransportError, TransportErrorKind as Kind,
    layer::{Answer, Job, Layer, transport},
    retry::named_pause,
    seen,
};

/// A family is held back this long for a 429 that names no pause.
const UNNAMED: Duration = Duration::from_secs(1);
/// Requests of a family that was held back are this far apart at first, and at last.
const LEAST_SPACE: Duration = Duration::from_millis(20);
const MOST_SPACE: Duration = Duration::from_secs(2);
/// Of that space each good answer leaves this much, in percent.
const EASING: u32 = 80;

/// A transport whose requests wait for each other, in the order in which they came, family by family.
///
/// After a 429 nobody of its [`Family`] sends until the pause that it names is over, and then one after the other with
/// some space between, which doubles with every further 429 and shrinks with every answer that is none: a thousand rooms
/// that were told to wait do not come back at once. A limit that is known can be [set](Self::limit).
///
/// A request that could not be sent within its [`Deadline`](crate::Deadline), or within [`patience`](Self::patience), is
/// answered at once with the 429 that holds its family back, and the pause that is left of it in `Retry-After`; one that
/// a [set](Self::limit) limit holds back ends with [`Phase::Queue`]. Either way nothing was sent.
///
/// Inside [`Retry`](crate::Retry) it sees every attempt; what was refused stands in line again. Clones share the budgets.
#[derive(Clone, Debug)]
pub struct RateLimit<T> {
    inner: T,
    patience: Duration,
    families: Arc<BTreeMap<Family, Line>>,
}

/// The line of a family.
#[derive(Debug, Default)]
struct Line {
    /// Who is next: held while waiting, given on in the order of coming.
    next: tokio::sync::Mutex<()>,
    budget: Mutex<Budget>,
}

/// What a family may send, and when.
#[derive(Debug, Default)]
struct Budget {
    limit: Option<Limit>,
    /// Not before this, as a 429 says, and that 429.
    held: Option<(Instant, http::Response<Bytes>)>,
    space: Duration,
    last: Option<Instant>,
}

/// So many requests at once, and another after each of these times.
#[derive(Debug)]
struct Limit {
    burst: u32,
    every: Duration,
    /// When all of the burst is there again.
    full: Option<Instant>,
}

impl<T: Transport> RateLimit<T> {
    /// Nothing is known of the homeserver's limits: they are learned.
    pub fn new(inner: T) -> Self {
        let families = Family::ALL.into_iter().map(|family| (family, Line::default()));
        Self {
            inner,
            patience: Duration::from_secs(120),
            families: Arc::new(families.collect()),
        }
    }

    /// At most `burst` requests of a family at once, and on average one in `every`. A burst of 0 is one of 1.
    #[must_use]
    pub fn limit(self, family: Family, burst: u32, every: Duration) -> Self {
        if let Some(line) = self.families.get(&family) {
            line.budget().limit = Some(Limit {
                burst: burst.max(1),
                every,
                full: None,
            });
        }
        self
    }

    /// How long a request without a [`Deadline`](crate::Deadline) stands in line at most. Default: 2 minutes.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
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
        let Some(line) = self.families.get(&family) else {
            return job.run(&self.inner).await;
        };
        let came = Instant::now();
        let end = came.checked_add(job.deadline().unwrap_or(self.patience));
        if let Some(refused) = line.wait(end).await {
            return refused;
        }
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
        line.learn(family, &answer);
        answer
    }
}

impl Line {
    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait for our turn. `Some`: it does not come in time.
    async fn wait(&self, end: Option<Instant>) -> Option<Answer> {
        if let Some(refused) = self.budget().beyond(end) {
            return Some(refused);
        }
        let standing = self.next.lock();
        let _turn = match end {
            // Who is before us knows no later end than we do, or is told the same.
            Some(end) => match tokio::time::timeout_at(end, standing).await {
                Ok(turn) => turn,
                Err(_) => return Some(self.budget().refusal()),
            },
            None => standing.await,
        };
        loop {
            // Told again after each wait: another answer may have come meanwhile.
            let at = {
                let mut budget = self.budget();
                let at = budget.ready();
                if at.is_none_or(|at| at <= Instant::now()) {
                    budget.take();
                    return None;
                }
                if let Some(refused) = budget.beyond(end) {
                    return Some(refused);
                }
                at
            };
            if let Some(at) = at {
                tokio::time::sleep_until(at).await;
            }
        }
    }

    fn learn(&self, family: Family, answer: &Answer) {
        let Ok(response) = answer else { return };
        let mut budget = self.budget();
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            budget.ease();
            return;
        }
        seen::limited(family);
        let pause = named_pause(response)
            .filter(|pause| !pause.is_zero())
            .unwrap_or(UNNAMED);
        tracing::warn!(
            target: "mx_transport::rate_limit",
            family = family.name(),
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the homeserver says that it is too much: the family waits"
        );
        budget.hold(pause, response);
    }
}

impl Budget {
    /// When the next request may go. `None`: at once.
    fn ready(&self) -> Option<Instant> {
        let held = self.held.as_ref().map(|(until, _)| *until);
        let spaced = self.last.map(|last| last + self.space);
        let limited = self.limit.as_ref().and_then(Limit::ready);
        held.max(spaced).max(limited)
    }

    /// What a request is told whose turn comes after its end.
    fn beyond(&self, end: Option<Instant>) -> Option<Answer> {
        (end.is_some() && self.ready() > end).then(|| self.refusal())
    }

    /// A request goes.
    fn take(&mut self) {
        let now = Instant::now();
        self.held = None;
        self.last = Some(now);
        if let Some(limit) = &mut self.limit {
            limit.full = Some(limit.full.map_or(now, |full| full.max(now)) + limit.every);
        }
    }

    fn hold(&mut self, pause: Duration, response: &http::Response<Bytes>) {
        let until = Instant::now() + pause;
        if self.held.as_ref().is_none_or(|(before, _)| *before < until) {
            self.held = Some((until, response.clone()));
        }
        self.space = (self.space * 2).clamp(LEAST_SPACE, MOST_SPACE);
    }

    fn ease(&mut self) {
        self.space = self.space * EASING / 100;
        if self.space < Duration::from_millis(1) {
            self.space = Duration::ZERO;
        }
    }

    /// What a request is told that cannot wait as long.
    fn refusal(&self) -> Answer {
        let Some((until, response)) = &self.held else {
            return Err(TransportError::new(Kind::Timeout(Phase::Queue)));
        };
        let left = until.saturating_duration_since(Instant::now());
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let mut response = response.clone();
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
        Ok(response)
    }
}

impl Limit {
    /// When there is room for another one: `burst` of them fit before the time at which all is there again.
    fn ready(&self) -> Option<Instant> {
        self.full?.checked_sub(self.every * (self.burst - 1))
    }
}

#[cfg(test)]
mod tests;
