//! A line: who is next, and who is told not to wait.

use std::{
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::budget::{Budget, Rules};
use crate::{
    Family,
    layer::Answer,
    retry::{named_pause, said},
    seen,
};

/// A budget is held back this long for a 429 that names no pause.
const UNNAMED: Duration = Duration::from_secs(1);
/// Who waits for news looks again after this long, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The line before a budget.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Who is next: held while waiting, given on in the order of coming.
    next: tokio::sync::Mutex<()>,
    /// How many wait, with the one who is next.
    standing: AtomicUsize,
    budget: Mutex<Budget>,
    /// An answer has come: there may be room.
    news: Notify,
}

impl Line {
    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is known here is worth remembering.
    pub(super) fn is_needed(&self) -> bool {
        self.budget().is_needed()
    }

    /// Wait for our turn, and take it. `Err`: it does not come in time.
    pub(super) async fn turn(&self, rules: Rules, end: Option<Instant>) -> Result<Turn<'_>, Answer> {
        let standing = Standing::behind(&self.standing);
        if let Some(refused) = self.budget().beyond(&rules, end, standing.before) {
            return Err(refused);
        }
        let next = self.next.lock();
        let _next = match end {
            Some(end) => match timeout_at(end, next).await {
                Ok(next) => next,
                Err(_) => return Err(self.budget().refusal()),
            },
            None => next.await,
        };
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            // Looked at again after each wait: another answer may have come meanwhile.
            let at = {
                let mut budget = self.budget();
                if let Some(generation) = budget.take(&rules) {
                    return Ok(Turn { line: self, generation });
                }
                if let Some(refused) = budget.beyond(&rules, end, 0) {
                    return Err(refused);
                }
                budget.ready(&rules)
            };
            let now = Instant::now();
            if end.is_some_and(|end| end <= now) {
                return Err(self.budget().refusal());
            }
            // In the past: there is no room yet, which is news when it comes.
            let until = at.filter(|at| *at > now).unwrap_or(now + LOOK_AGAIN);
            let until = end.map_or(until, |end| until.min(end));
            let _either = timeout_at(until, news).await;
        }
    }
}

/// A place in the line, given up when it is dropped.
struct Standing<'a> {
    standing: &'a AtomicUsize,
    before: usize,
}

impl<'a> Standing<'a> {
    fn behind(standing: &'a AtomicUsize) -> Self {
        let before = standing.fetch_add(1, Ordering::Relaxed);
        Self { standing, before }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.standing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    line: &'a Line,
    /// Which of the budget's refusals were known when it went.
    generation: u64,
}

impl Turn<'_> {
    /// What an answer says of the budget.
    pub(super) fn learn(&self, family: Family, answer: &Answer) {
        let Ok(response) = answer else { return };
        let mut budget = self.line.budget();
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            budget.ease(self.generation);
            return;
        }
        seen::limited(family);
        let pause = named_pause(response)
            .filter(|pause| !pause.is_zero())
            .unwrap_or(UNNAMED);
        if budget.hold(pause, said(response.body()).errcode, self.generation) {
            tracing::warn!(
                target: "mx_transport::rate_limit",
                family = family.name(),
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the homeserver says that it is too much: the family waits"
            );
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.line.budget().end();
        self.line.news.notify_waiters();
    }
}
