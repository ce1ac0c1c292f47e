//! Trying again: when it does no harm, as long as it makes sense, and never without a bound.
//!
//! # Why our own loop
//! The pauses come from the crate `backon` (exponential, full jitter). What it has no place for is here: which answers
//! and errors may be tried again depends on the request, a server may name the pause itself, and a pause that does not
//! fit into the deadline ends the attempts at once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use http::{Method, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{Deadline, Idempotent, Sink, Source, Streams, Transport, TransportError, TransportErrorKind};

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

    /// The attempts of one request. A 429 may come with a pause that is longer than an exchange usually takes: it is
    /// waited for within the larger of both.
    fn attempts_of<B>(&self, request: &http::Request<B>) -> Attempts {
        let deadline = request.extensions().get::<Deadline>();
        let budget = deadline.map_or(self.total, |deadline| deadline.0.max(self.total));
        Attempts {
            left: self.attempts,
            end: Instant::now() + budget,
            repeatable: is_repeatable(request),
            longest: self.max_pause,
            pauses: ExponentialBuilder::default()
                .with_min_delay(self.min_pause)
                .with_max_delay(self.max_pause)
                .with_jitter()
                .without_max_times()
                .build(),
        }
    }

    fn inner_streams(&self) -> Result<&dyn Streams, TransportError> {
        self.inner
            .streams()
            .ok_or_else(|| TransportError::with_source(TransportErrorKind::Build, "this transport carries no files"))
    }
}

/// What is left of the attempts of one request.
struct Attempts {
    left: usize,
    end: Instant,
    repeatable: bool,
    longest: Duration,
    pauses: ExponentialBackoff,
}

impl Attempts {
    /// Wait before the next attempt. `false`: there is none, and the answer is the last one.
    async fn again(&mut self, answer: &Result<http::Response<Bytes>, TransportError>) -> bool {
        let named = match answer {
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => named_pause(response),
            Ok(response) if self.repeatable && is_failure_of_the_moment(response.status()) => named_pause(response),
            Err(error) if error.is_transient() && (self.repeatable || !error.may_have_been_processed()) => None,
            _ => return false,
        };
        let pause = named.or_else(|| self.pauses.next()).unwrap_or(self.longest);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || Instant::now() + pause >= self.end {
            return false;
        }
        tracing::debug!(
            left = self.left,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "trying a request again"
        );
        tokio::time::sleep(pause).await;
        true
    }
}

#[async_trait]
impl<T: Transport> Transport for Retry<T> {
    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let mut attempts = self.attempts_of(&request);
        loop {
            let answer = self.inner.send(request.clone()).await;
            if !attempts.again(&answer).await {
                return answer;
            }
        }
    }

    fn streams(&self) -> Option<&dyn Streams> {
        self.inner.streams().map(|_| self as _)
    }
}

/// Every attempt sends the source from its start, and fills the sink anew.
#[async_trait]
impl<T: Transport> Streams for Retry<T> {
    async fn upload(&self, request: http::Request<Arc<dyn Source>>) -> Result<http::Response<Bytes>, TransportError> {
        let streams = self.inner_streams()?;
        let mut attempts = self.attempts_of(&request);
        loop {
            let answer = streams.upload(request.clone()).await;
            if !attempts.again(&answer).await {
                return answer;
            }
        }
    }

    async fn download(
        &self,
        request: http::Request<Bytes>,
        sink: &mut dyn Sink,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let streams = self.inner_streams()?;
        let mut attempts = self.attempts_of(&request);
        loop {
            let answer = streams.download(request.clone(), sink).await;
            if !attempts.again(&answer).await {
                return answer;
            }
        }
    }
}

fn is_repeatable<B>(request: &http::Request<B>) -> bool {
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
