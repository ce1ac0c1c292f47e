//! How soon the next long poll may follow: a homeserver that fails, or answers at once with nothing, is asked less and less.
//!
//! # Why here
//! A loop around [`sync`](crate::Orchestrator::sync) is what every app writes, and a homeserver that does not wait turns it
//! into one that runs hot on both sides. The pauses (exponential, with jitter, from the crate `backon`) are therefore taken
//! where the question is asked, at most half of the time that the app gave; a sync that does not wait has none.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

use super::SyncSummary;
use crate::{Error, Result};

/// The first pause, and what pauses grow to.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// So many answers in a row may come at once with nothing in them: something may have been filtered out.
const FREE: u32 = 10;

/// What comes sooner came at once.
const AT_ONCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Answers in a row that came at once with nothing.
    idle: u32,
    growing: Option<Growing>,
    not_before: Option<Instant>,
}

/// Pauses of which each is longer than the one before.
#[derive(Debug)]
struct Growing(ExponentialBackoff);

impl Growing {
    fn new() -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(PAUSES.0)
            .with_max_delay(PAUSES.1)
            .with_jitter()
            .without_max_times();
        Self(builder.build())
    }

    fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(PAUSES.1)
    }
}

impl State {
    fn pause(&mut self, at_least: Option<Duration>) {
        let next = self.growing.get_or_insert_with(Growing::new).next();
        self.not_before = Some(Instant::now() + next.max(at_least.unwrap_or_default().min(PAUSES.1)));
    }
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait until the homeserver may be asked again, for at most half of `timeout`. Returns what is left of it.
    ///
    /// # Cancel safety
    /// Safe: who asks next waits for the rest.
    pub(super) async fn wait(&self, timeout: Duration) -> Duration {
        let began = Instant::now();
        let until = self.state().not_before.map(|at| at.min(began + timeout / 2));
        if let Some(until) = until.filter(|until| *until > began) {
            tokio::time::sleep_until(until).await;
        }
        timeout.saturating_sub(began.elapsed())
    }

    /// Note how a sync ended that was given `timeout` and took `took`.
    pub(super) fn note(&self, timeout: Duration, took: Duration, ended: &Result<SyncSummary>) {
        let mut state = self.state();
        match ended {
            Err(error) => {
                state.idle = 0;
                state.pause(named(error));
            }
            Ok(summary) if summary.nothing_new && !timeout.is_zero() && took < AT_ONCE.min(timeout / 2) => {
                state.idle = state.idle.saturating_add(1);
                if state.idle > FREE {
                    if state.idle == FREE + 1 {
                        tracing::warn!(
                            "the homeserver does not wait for news, and has none: it is asked less often, so that \
                             messages may come late"
                        );
                    }
                    state.pause(None);
                }
            }
            Ok(_) => *state = State::default(),
        }
    }
}

/// The pause that the homeserver asked for.
fn named(error: &Error) -> Option<Duration> {
    match error {
        Error::Request(mx_transport::RequestError::Api { retry_after, .. }) => *retry_after,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(30);

    fn answer(nothing_new: bool) -> Result<SyncSummary> {
        Ok(SyncSummary {
            nothing_new,
            ..SyncSummary::default()
        })
    }

    /// How long the next poll is held back.
    async fn pause(pace: &Pace, timeout: Duration) -> Duration {
        let began = Instant::now();
        let left = pace.wait(timeout).await;
        assert_eq!(left, timeout.saturating_sub(began.elapsed()));
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_empty_answers_are_paced_and_news_end_that() {
        let failure = || Err(Error::EngineStopped);
        let pace = Pace::default();
        assert_eq!(pause(&pace, POLL).await, Duration::ZERO);
        pace.note(POLL, Duration::ZERO, &failure());
        let first = pause(&pace, POLL).await;
        assert!(
            first >= Duration::from_secs(1) && first <= Duration::from_secs(2),
            "{first:?}"
        );
        for _ in 0..20 {
            pace.note(POLL, Duration::ZERO, &failure());
        }
        assert_eq!(
            pause(&pace, Duration::ZERO).await,
            Duration::ZERO,
            "who does not wait is not held"
        );
        assert_eq!(pause(&pace, POLL).await, POLL / 2, "half of the time is for asking");
        pace.note(POLL, Duration::ZERO, &answer(false));
        assert_eq!(pause(&pace, POLL).await, Duration::ZERO);

        for _ in 0..FREE {
            pace.note(POLL, Duration::ZERO, &answer(true));
            assert_eq!(pause(&pace, POLL).await, Duration::ZERO);
        }
        pace.note(POLL, Duration::ZERO, &answer(true));
        assert!(pause(&pace, POLL).await >= Duration::from_secs(1));
        pace.note(POLL, POLL, &answer(true));
        assert_eq!(pause(&pace, POLL).await, Duration::ZERO, "it waits again");
    }
}
