//! Trying again: when it does no harm, as long as it makes sense, and never without a bound.
//!
//! # Why our own loop
//! The series of pauses is that of the crate `backon`, and each pause is a random part of it (full jitter): many bots that
//! lose their homeserver together do not come back together. What `backon` has no place for is here: which answers and
//! errors may be tried again depends on the request, a server may name the pause itself, and a pause that does not fit
//! into the deadline ends the attempts at once.

mod pause;

use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::{Method, StatusCode};
use tokio::time::Instant;

pub(crate) use self::pause::{named_pause, said};
use crate::{
    Deadline, Family, Idempotent, Phase, Transport, TransportError, TransportErrorKind as Kind,
    layer::{Answer, Job, Layer, for_the_exchange, transport},
    seen,
};

/// A transport that tries again: after 429 always, since nothing was processed; after 502, 503, 504, 500 and a broken
/// or missing connection where sending twice does no harm.
///
/// Sending twice does no harm for GET, HEAD, PUT and DELETE, and for what is marked [`Idempotent`]. In Matrix that leaves
/// out what must not be repeated blindly: `/keys/claim` takes a one-time key with each answer, `/login` and `/register`
/// make a device. `/keys/upload` is marked, since the same bytes change nothing the second time.
///
/// A server that names a pause (`Retry-After`, `retry_after_ms`, in any form) is waited for; one that names a longer
/// pause than the deadline allows has its answer returned at once. A [`Deadline`] is for all attempts and pauses
/// together, and so is [`total`](Self::total) where a request has none. The last tenth of that time, or ten seconds of it,
/// begin no further attempt: nobody would wait for its answer.
///
/// ```
/// # use std::time::Duration;
/// # use mx_transport::{Retry, Transport};
/// # fn example(client: impl Transport) {
/// let patient = Retry::new(client).attempts(8).total(Duration::from_secs(300));
/// # drop(patient);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Retry<T> {
    inner: T,
    attempts: usize,
    total: Duration,
    attempt: Option<Duration>,
    min_pause: Duration,
    max_pause: Duration,
}

impl<T: Transport> Retry<T> {
    /// At most 5 attempts in at most 2 minutes, with pauses of up to half a second at first and 20 seconds at last.
    pub const fn new(inner: T) -> Self {
        Self {
            inner,
            attempts: 5,
            total: Duration::from_secs(120),
            attempt: None,
            min_pause: Duration::from_millis(500),
            max_pause: Duration::from_secs(20),
        }
    }

    /// How often a request is sent at most.
    #[must_use]
    pub const fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts;
        self
    }

    /// How long all attempts and pauses take at most, for a request without a [`Deadline`].
    #[must_use]
    pub const fn total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }

    /// How long one attempt takes at most, its time in line included, of a request that has a [`Deadline`] and may be sent
    /// twice: without this a connection that is dead may use all of the deadline up. Long polls and files are left alone,
    /// and so is what must not be repeated, whose end would only be unknown the sooner. Default: as long as the deadline
    /// allows; a client finds dead connections by itself, as [`ReqwestTransport`](crate::ReqwestTransport) does.
    #[must_use]
    pub const fn attempt(mut self, attempt: Duration) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// How long the first pause is at most, and the longest, where the server names none. Each is a random part of that.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mx_transport::{Retry, Transport};
    /// # fn example(client: impl Transport) {
    /// // A person waits: short pauses, and not for long.
    /// let retry = Retry::new(client).pauses(Duration::from_millis(100), Duration::from_secs(2)).total(Duration::from_secs(10));
    /// # drop(retry);
    /// # }
    /// ```
    #[must_use]
    pub const fn pauses(mut self, min: Duration, max: Duration) -> Self {
        self.min_pause = min;
        self.max_pause = max;
        self
    }

    /// The attempts of one request.
    fn attempts_of(&self, job: &Job<'_>) -> Attempts {
        let total = job.deadline().unwrap_or(self.total);
        let total = job.time_left().map_or(total, |left| left.min(total));
        let repeatable = is_repeatable(job);
        let is_short = matches!(job, Job::Send(_)) && job.family() != Family::Sync;
        Attempts {
            left: self.attempts,
            end: Instant::now().checked_add(total),
            exchange: for_the_exchange(total),
            longest_attempt: self.attempt.filter(|_| repeatable && is_short),
            repeatable,
            longest: self.max_pause,
            pauses: ExponentialBuilder::default()
                .with_min_delay(self.min_pause)
                .with_max_delay(self.max_pause)
                .without_max_times()
                .build(),
        }
    }
}

transport!(Retry);

#[async_trait]
impl<T: Transport> Layer for Retry<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let mut attempts = self.attempts_of(job);
        let bounded = job.deadline().is_some();
        loop {
            let mut left = attempts.time_left();
            if bounded {
                left = left.map(|left| attempts.longest_attempt.map_or(left, |longest| longest.min(left)));
            }
            if let Some(left) = left {
                if bounded {
                    job.extensions_mut().insert(Deadline(left));
                }
                job.waits_at_most(left);
            }
            let attempt = job.run(&self.inner);
            let answer = match left {
                // What is inside keeps the deadline too, and knows better what it was waiting for.
                Some(left) => tokio::time::timeout(left + GRACE, attempt)
                    .await
                    .unwrap_or_else(|_| Err(TransportError::new(Kind::Timeout(Phase::Total)))),
                None => attempt.await,
            };
            if !attempts.again(job, &answer).await {
                return answer;
            }
        }
    }
}

/// What is inside may say itself that the time is up.
const GRACE: Duration = Duration::from_millis(250);

/// What is left of the attempts of one request.
struct Attempts {
    left: usize,
    /// `None`: for ever, as far as this clock can tell.
    end: Option<Instant>,
    /// What of the time is for an exchange, and not for a pause before it.
    exchange: Duration,
    longest_attempt: Option<Duration>,
    repeatable: bool,
    longest: Duration,
    pauses: ExponentialBackoff,
}

impl Attempts {
    fn time_left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Wait before the next attempt. `false`: there is none, and the answer is the last one.
    async fn again(&mut self, job: &mut Job<'_>, answer: &Answer) -> bool {
        let named = match answer {
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => named_pause(response),
            Ok(response) if self.repeatable && is_failure_of_the_moment(response.status()) => named_pause(response),
            Err(error) if error.is_transient() && (self.repeatable || !error.may_have_been_processed()) => None,
            _ => return false,
        };
        self.left = self.left.saturating_sub(1);
        // A pause of nothing is no pause that anybody means: ours then.
        let pause = named
            .filter(|pause| !pause.is_zero())
            .unwrap_or_else(|| random_part(self.pauses.next().unwrap_or(self.longest)));
        if self.left == 0
            || self
                .time_left()
                .is_some_and(|left| pause.saturating_add(self.exchange) >= left)
        {
            return false;
        }
        tracing::debug!(
            target: "mx_transport::retry",
            endpoint = %job.shown(),
            left = self.left,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "trying a request again"
        );
        seen::retried(job, pause);
        tokio::time::sleep(pause).await;
        true
    }
}

/// Full jitter: anything from nothing to all of it.
fn random_part(pause: Duration) -> Duration {
    pause.mul_f64(fastrand::f64())
}

fn is_repeatable(job: &Job<'_>) -> bool {
    matches!(*job.method(), Method::GET | Method::HEAD | Method::PUT | Method::DELETE)
        || job.extensions().get::<Idempotent>().is_some()
}

const fn is_failure_of_the_moment(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504 | 520..=527)
}

#[cfg(test)]
mod tests;
