//! How soon the next long poll may follow: a homeserver that fails, or answers at once with nothing, is asked less and less.
//!
//! # Why here
//! A loop around [`sync`](crate::Orchestrator::sync) is what every app writes, and a homeserver that does not wait turns it
//! into one that runs hot on both sides. The pauses (exponential, with jitter, from the crate `backon`) are therefore taken
//! where the question is asked, at most half of the time that the app gave; a sync that does not wait has none. A pause that
//! the homeserver names is kept whole: where the app gave less time, it is told once more, and nothing is asked.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use mx_transport::RequestError;
use ruma::exports::http::StatusCode;
use tokio::time::Instant;

use super::SyncSummary;
use crate::{Error, Result};

/// The first pause, and what pauses grow to.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The longest pause that a homeserver may name.
const LONGEST_NAMED: Duration = Duration::from_secs(3600);

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
    refusal: Option<Refusal>,
    /// A sliding sync began anew since the last note, and that many times in a row.
    began_anew: bool,
    beginnings: u32,
}

/// The homeserver asked for a pause.
#[derive(Clone, Debug)]
struct Refusal {
    until: Instant,
    endpoint: &'static str,
    status: StatusCode,
    errcode: Option<String>,
    message: String,
}

impl Refusal {
    fn of(error: &Error) -> Option<Self> {
        let Error::Request(RequestError::Api {
            endpoint,
            status,
            errcode,
            message,
            retry_after: Some(pause),
        }) = error
        else {
            return None;
        };
        Some(Self {
            until: Instant::now() + (*pause).min(LONGEST_NAMED),
            endpoint,
            status: *status,
            errcode: errcode.clone(),
            message: message.clone(),
        })
    }

    fn error(self) -> Error {
        Error::Request(RequestError::Api {
            endpoint: self.endpoint,
            status: self.status,
            errcode: self.errcode,
            message: self.message,
            retry_after: Some(self.until.saturating_duration_since(Instant::now())),
        })
    }
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
    fn pause(&mut self) {
        let next = self.growing.get_or_insert_with(Growing::new).next();
        self.not_before = Some(Instant::now() + next);
    }
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait until the homeserver may be asked again, for at most half of `timeout` unless it named the pause. Returns what is
    /// left of it.
    ///
    /// # Errors
    /// What the homeserver said, where the pause that it named is longer.
    ///
    /// # Cancel safety
    /// Safe: who asks next waits for the rest.
    pub(super) async fn wait(&self, timeout: Duration) -> Result<Duration> {
        let began = Instant::now();
        let (not_before, refusal) = {
            let state = self.state();
            (state.not_before, state.refusal.clone())
        };
        let named = refusal.filter(|refusal| refusal.until > began);
        let until = match named {
            Some(refusal) if refusal.until > began + timeout => return Err(refusal.error()),
            Some(refusal) => Some(refusal.until),
            None => not_before.map(|at| at.min(began + timeout / 2)),
        };
        if let Some(until) = until.filter(|until| *until > began) {
            tokio::time::sleep_until(until).await;
        }
        Ok(timeout.saturating_sub(began.elapsed()))
    }

    /// A sliding sync is not known to the homeserver any more, and begins anew.
    pub(super) fn began_anew(&self) {
        self.state().began_anew = true;
    }

    /// Note how a sync ended that was given `timeout` and took `took`.
    pub(super) fn note(&self, timeout: Duration, took: Duration, ended: &Result<SyncSummary>) {
        let mut state = self.state();
        state.refusal = ended.as_ref().err().and_then(Refusal::of);
        state.beginnings = if std::mem::take(&mut state.began_anew) {
            state.beginnings.saturating_add(1)
        } else {
            0
        };
        match ended {
            Err(_) => {
                state.idle = 0;
                state.pause();
            }
            // To forget once is nothing; every time is a failure.
            Ok(_) if state.beginnings > 1 => state.pause(),
            Ok(summary) if summary.nothing_new && !timeout.is_zero() && took < AT_ONCE.min(timeout / 2) => {
                state.idle = state.idle.saturating_add(1);
                if state.idle > FREE {
                    if state.idle == FREE + 1 {
                        tracing::warn!(
                            "the homeserver does not wait for news, and has none: it is asked less often, so that \
                             messages may come late"
                        );
                    }
                    state.pause();
                }
            }
            Ok(_) => {
                *state = State {
                    beginnings: state.beginnings,
                    ..State::default()
                }
            }
        }
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
        let left = pace.wait(timeout).await.unwrap();
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

    #[tokio::test(start_paused = true)]
    async fn a_named_pause_is_kept_whole_or_told_again() {
        let pace = Pace::default();
        let refused = Err(Error::Request(RequestError::Api {
            endpoint: "/sync",
            status: StatusCode::TOO_MANY_REQUESTS,
            errcode: Some("M_LIMIT_EXCEEDED".to_owned()),
            message: "slower".to_owned(),
            retry_after: Some(Duration::from_secs(40)),
        }));
        pace.note(POLL, Duration::ZERO, &refused);
        for timeout in [Duration::ZERO, POLL] {
            let error = pace.wait(timeout).await.unwrap_err();
            assert!(matches!(
                error,
                Error::Request(RequestError::Api { retry_after: Some(left), .. }) if left == Duration::from_secs(40)
            ));
        }
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(
            pause(&pace, POLL).await,
            Duration::from_secs(25),
            "more than half of the time"
        );
        assert_eq!(pause(&pace, Duration::ZERO).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn beginning_anew_each_time_is_a_failure() {
        let pace = Pace::default();
        pace.began_anew();
        pace.note(POLL, POLL, &answer(false));
        assert_eq!(pause(&pace, POLL).await, Duration::ZERO, "once is nothing");
        for _ in 0..6 {
            pace.began_anew();
            pace.note(POLL, Duration::ZERO, &answer(false));
        }
        assert_eq!(pause(&pace, POLL).await, POLL / 2);
        pace.note(POLL, Duration::ZERO, &answer(false));
        assert_eq!(pause(&pace, POLL).await, Duration::ZERO);
    }
}
