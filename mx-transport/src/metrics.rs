//! Counting and measuring what goes over the wire, for whoever has set a recorder.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    Transport,
    layer::{Answer, Job, Layer, transport},
    seen::name,
};

/// A transport that counts and measures, through the facade [`metrics`](https://docs.rs/metrics): without a recorder, which
/// is the application's choice, it does nothing. Around the client it sees every attempt, around [`Retry`](crate::Retry)
/// every request.
///
/// | name | kind | labels | what |
/// |---|---|---|---|
/// | `mx_transport_requests_total` | counter | `method`, `endpoint`, `outcome` | exchanges that ended |
/// | `mx_transport_request_seconds` | histogram | `endpoint`, `outcome` | how long they took |
/// | `mx_transport_requests_under_way` | gauge | | exchanges that have not ended |
/// | `mx_transport_sent_bytes_total` | counter | `endpoint` | bodies that were sent, as they were given |
/// | `mx_transport_received_bytes_total` | counter | `endpoint` | bodies that were received, after decompression |
/// | `mx_transport_retries_total` | counter | `endpoint` | attempts after the first, by [`Retry`](crate::Retry) |
/// | `mx_transport_rate_limited_total` | counter | `family` | answers of 429 that [`RateLimit`](crate::RateLimit) has seen |
/// | `mx_transport_wait_seconds` | histogram | `family`, `reason` | how long a request was held back: `retry`, `rate_limit` |
///
/// `endpoint` is the path of the endpoint with the names of its parameters, never an id. `outcome` is the status, or the
/// code of the error, or `dropped`. `family` is that of [`Family::name`](crate::Family::name).
///
/// ```
/// # use mx_transport::{Metrics, Retry, Transport};
/// # fn example(client: impl Transport) {
/// // Once in the program, a recorder is set: `metrics::set_global_recorder(…)`. Then every attempt is counted.
/// let transport = Retry::new(Metrics::new(client));
/// # drop(transport);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Metrics<T> {
    inner: T,
}

impl<T: Transport> Metrics<T> {
    /// Count what goes through `inner`.
    pub const fn new(inner: T) -> Self {
        Self { inner }
    }
}

transport!(Metrics);

#[async_trait]
impl<T: Transport> Layer for Metrics<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let mut exchange = Exchange::begin(job);
        metrics::counter!(name::BYTES_OUT, "endpoint" => job.shown()).increment(job.bytes_out());
        let (answer, bytes) = job.run_counted(&self.inner).await;
        metrics::counter!(name::BYTES_IN, "endpoint" => job.shown()).increment(bytes);
        exchange.outcome = crate::layer::outcome(&answer);
        answer
    }
}

/// An exchange that is under way: whatever becomes of it, it is counted once.
struct Exchange {
    method: String,
    endpoint: std::borrow::Cow<'static, str>,
    outcome: String,
    begun: Instant,
}

impl Exchange {
    fn begin(job: &Job<'_>) -> Self {
        metrics::gauge!(name::UNDER_WAY).increment(1.0);
        Self {
            method: job.method().to_string(),
            endpoint: job.shown(),
            outcome: "dropped".to_owned(),
            begun: Instant::now(),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.begun.elapsed().as_secs_f64();
        let (endpoint, outcome) = (self.endpoint.clone(), std::mem::take(&mut self.outcome));
        metrics::gauge!(name::UNDER_WAY).decrement(1.0);
        metrics::histogram!(name::SECONDS, "endpoint" => endpoint.clone(), "outcome" => outcome.clone()).record(took);
        let method = std::mem::take(&mut self.method);
        metrics::counter!(name::REQUESTS, "method" => method, "endpoint" => endpoint, "outcome" => outcome)
            .increment(1);
    }
}
