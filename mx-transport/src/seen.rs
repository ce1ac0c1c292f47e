//! What is counted and measured: the names, in one place. Without the feature `metrics` it is nothing.

use std::time::Duration;

use crate::{Family, layer::Job};

/// Every name, as [`Metrics`](crate::Metrics) documents it.
#[cfg(feature = "metrics")]
pub(crate) mod name {
    pub(crate) const REQUESTS: &str = "mx_transport_requests_total";
    pub(crate) const SECONDS: &str = "mx_transport_request_seconds";
    pub(crate) const BYTES_OUT: &str = "mx_transport_sent_bytes_total";
    pub(crate) const BYTES_IN: &str = "mx_transport_received_bytes_total";
    pub(crate) const UNDER_WAY: &str = "mx_transport_requests_under_way";
    pub(crate) const RETRIES: &str = "mx_transport_retries_total";
    pub(crate) const LIMITED: &str = "mx_transport_rate_limited_total";
    pub(crate) const WAIT: &str = "mx_transport_wait_seconds";
}

/// A request is sent again after a pause.
pub(crate) fn retried(job: &Job<'_>, pause: Duration) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name::RETRIES, "endpoint" => job.shown()).increment(1);
    waited(Family::of(job.path()), "retry", pause);
}

/// A homeserver said that it is too much.
pub(crate) fn limited(family: Family) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name::LIMITED, "family" => family.name()).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = family;
}

/// A request was held back.
pub(crate) fn waited(family: Family, reason: &'static str, time: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(name::WAIT, "family" => family.name(), "reason" => reason).record(time.as_secs_f64());
    #[cfg(not(feature = "metrics"))]
    let _ = (family, reason, time);
}
