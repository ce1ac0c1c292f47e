//! A log of requests that holds no secret.

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::{Instrument, Level};

use crate::{
    Transport,
    layer::{Answer, Job, Layer, outcome, transport},
};

/// A transport that writes what it sends and receives to the log, through `tracing`, with the target
/// `mx_transport::request`: a span `request` around each exchange (level DEBUG: `method`, `endpoint`, `family`), and in it
/// an event at its end (`outcome`, `ms`, `bytes_out`, `bytes_in`), at DEBUG, or at INFO when no complete answer came or
/// the server failed: what that means is for the caller to say, and louder.
///
/// Never in it, at any level: a header, a query, a body, an id. A path is shown as its endpoint.
///
/// ```
/// # use mx_transport::{RequestLog, Retry, Transport};
/// # fn example(client: impl Transport) {
/// // Inside of `Retry` every attempt is logged: RUST_LOG=mx_transport::request=debug
/// let transport = Retry::new(RequestLog::new(client));
/// # drop(transport);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RequestLog<T> {
    inner: T,
}

impl<T: Transport> RequestLog<T> {
    /// Log what goes through `inner`.
    pub const fn new(inner: T) -> Self {
        Self { inner }
    }
}

transport!(RequestLog);

#[async_trait]
impl<T: Transport> Layer for RequestLog<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let span = tracing::debug_span!(
            target: "mx_transport::request",
            "request",
            method = %job.method(),
            endpoint = %job.shown(),
            family = job.family().name(),
        );
        async {
            let (begun, bytes_out) = (Instant::now(), job.bytes_out());
            let (answer, bytes_in) = job.run_counted(&self.inner).await;
            ended(&answer, begun, bytes_out, bytes_in);
            answer
        }
        .instrument(span)
        .await
    }
}

fn ended(answer: &Answer, begun: Instant, bytes_out: u64, bytes_in: u64) {
    let (outcome, ms) = (
        outcome(answer),
        u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    );
    let failed = answer.as_ref().map_or(true, |answer| answer.status().is_server_error());
    macro_rules! log {
        ($level:expr) => {
            tracing::event!(target: "mx_transport::request", $level, %outcome, ms, bytes_out, bytes_in, "exchanged")
        };
    }
    if failed {
        log!(Level::INFO);
    } else {
        log!(Level::DEBUG);
    }
}
