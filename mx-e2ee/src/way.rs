//! The built-in way to a homeserver: the HTTP client, and what stands around it.

use std::{sync::Arc, time::Duration};

use mx_transport::{BodyCap, Family, RateLimit, RequestLog, ReqwestTransport, Retry, Timeouts, Transport};

use crate::Result;

/// No answer has more bytes, in memory: the first sync of an account in a thousand rooms stays well below.
const LONGEST_ANSWER: u64 = 256 * 1024 * 1024;
/// Answers about logins and devices are short, in bytes.
const LONGEST_ABOUT_ACCOUNTS: u64 = 4 * 1024 * 1024;
/// Joining a room that is large, or far away, takes its time.
const ROOMS: Duration = Duration::from_secs(180);

/// From the outside to the inside: the time for a request with all its attempts; attempts; standing in line, for each of
/// them; what is counted and logged, of each of them; how large an answer may be; the client.
pub(crate) fn built_in() -> Result<Arc<dyn Transport>> {
    let client = ReqwestTransport::builder().build()?;
    let capped = BodyCap::new(client, LONGEST_ANSWER).of_family(Family::Account, LONGEST_ABOUT_ACCOUNTS);
    let seen = RequestLog::new(capped);
    #[cfg(feature = "metrics")]
    let seen = mx_transport::Metrics::new(seen);
    let patient = Retry::new(RateLimit::new(seen));
    Ok(Arc::new(Timeouts::new(patient).of_family(Family::Rooms, ROOMS)))
}
