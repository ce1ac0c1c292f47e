//! Trying again: when it does no harm, as long as it makes sense, and never without a bound.
//!
//! # Why our own loop
//! The pauses come from the crate `backon` (exponential, full jitter). What it has no place for is here: which answers
//! and errors may be tried again depends on the request, a server may name the pause itself, and a pause that does not
//! fit into the deadline ends the attempts at once.

use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::{Method, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{Deadline, Idempotent, Transport, TransportError};

/// A transport that tries again: after 429 always, since nothing was processed; after 502, 503, 504, 500 and a broken
/// or missing connection where sending twice does no harm.
///
/// A server that names a pause (`Retry-After`, `retry_after_ms`) is waited for; one that names a longer pause than the
/// deadline allows has its answer returned at once.
#[derive(Clone, Debug)]
pub struct Retry<T> {
    inner: T,
    attempts: usize,
    total: Duration,
    min_pause: Duration,
    max_pause: Duration,
}

impl<T: Transport> Retry<T> {
    /// At most 5 attempts in at most 2 minutes, with pauses of half a second to 20 seconds.
    pub const fn new(inner: T) -> Self {
        Self {
            inner,
            attempts: 5,
            total: Duration::from_secs(120),
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

    /// The first pause, and the longest, where the server names none.
    #[must_use]
    pub const fn pauses(mut self, min: Duration, max: Duration) -> Self {
        self.min_pause = min;
        self.max_pause = max;
        self
    }

    /// A 429 may come with a pause that is longer than an exchange usually takes: it is waited for within this.
    fn budget(&self, request: &http::Request<Bytes>) -> Duration {
        request
            .extensions()
            .get::<Deadline>()
            .map_or(self.total, |deadline| deadline.0.max(self.total))
    }
}

#[async_trait]
impl<T: Transport> Transport for Retry<T> {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let end = Instant::now() + self.budget(&request);
        let repeatable = is_repeatable(&request);
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.min_pause)
            .with_max_delay(self.max_pause)
            .with_jitter()
            .without_max_times()
            .build();
        for attempt in 1.. {
            let answer = self.inner.send(request.clone()).await;
            let named = match &answer {
                Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => named_pause(response),
                Ok(response) if repeatable && is_failure_of_the_moment(response.status()) => named_pause(response),
                Err(error) if error.is_transient() && (repeatable || !error.may_have_been_processed()) => None,
                _ => return answer,
            };
            let pause = named.or_else(|| pauses.next()).unwrap_or(self.max_pause);
            if attempt >= self.attempts || Instant::now() + pause >= end {
                return answer;
            }
            tracing::debug!(
                attempt,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "trying a request again"
            );
            tokio::time::sleep(pause).await;
        }
        // The loop above has no end of its own.
        Err(TransportError::new(crate::TransportErrorKind::Timeout))
    }
}

fn is_repeatable(request: &http::Request<Bytes>) -> bool {
    matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE
    ) || request.extensions().get::<Idempotent>().is_some()
}

const fn is_failure_of_the_moment(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504 | 520..=527)
}

/// The pause that the server names: `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), else
/// `retry_after_ms` of the body, which the Matrix specification has deprecated and every homeserver still sends.
pub(crate) fn named_pause(response: &http::Response<Bytes>) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Body {
        retry_after_ms: Option<u64>,
    }
    let header = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(str::trim);
    let from_header = header.and_then(|value| {
        value.parse().map(Duration::from_secs).ok().or_else(|| {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
        })
    });
    from_header.or_else(|| {
        let body: Body = serde_json::from_slice(response.body()).ok()?;
        body.retry_after_ms.map(Duration::from_millis)
    })
}

#[cfg(test)]
mod tests;
