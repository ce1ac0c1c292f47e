//! A code that a person types elsewhere (RFC 8628).

use std::{fmt, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

/// Where the server names no pause (RFC 8628, section 3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// A server that names a longer pause would keep people waiting who are done.
const MAX_INTERVAL: Duration = Duration::from_secs(60);
/// Nobody is waited for longer.
const MAX_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// A login that waits for a person. The person opens [`verification_uri`](Self::verification_uri) on any device and types
/// [`user_code`](Self::user_code); [`verification_uri_complete`](Self::verification_uri_complete) holds both.
///
/// ```no_run
/// # fn example(waiting: &mx_transport::DeviceAuthorization) {
/// println!("open {} and type {}", waiting.verification_uri, waiting.user_code);
/// if let Some(page) = &waiting.verification_uri_complete {
///     println!("or open {page}, where the code is typed already");
/// }
/// println!("there are {} seconds for it", waiting.left().as_secs());
/// # }
/// ```
pub struct DeviceAuthorization {
    /// What the person types.
    pub user_code: String,
    /// Where.
    pub verification_uri: Url,
    /// The same with the code in it, as for a QR code.
    pub verification_uri_complete: Option<Url>,
    /// The device that is logged in.
    pub device_id: ruma::OwnedDeviceId,
    pub(crate) device_code: Zeroizing<String>,
    pub(crate) interval: Duration,
    pub(crate) until: Instant,
}

impl DeviceAuthorization {
    /// How long the person has yet.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Ask less often.
    pub(crate) fn slow_down(&mut self, by: Duration) {
        self.interval = (self.interval + by).min(MAX_INTERVAL);
    }
}

impl fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAuthorization")
            .field("verification_uri", &self.verification_uri.as_str())
            .field("device_id", &self.device_id)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// As the server answers.
#[derive(Deserialize)]
pub(crate) struct Offered {
    device_code: Zeroizing<String>,
    user_code: String,
    verification_uri: Url,
    verification_uri_complete: Option<Url>,
    expires_in: u64,
    interval: Option<u64>,
}

impl Offered {
    /// `None`: a person would be sent to a page that is not of the web, or would have to type what cannot be seen.
    pub(crate) fn authorization(self, device_id: ruma::OwnedDeviceId) -> Option<DeviceAuthorization> {
        let of_the_web = |url: &Url| matches!(url.scheme(), "https" | "http");
        let visible = !self.user_code.is_empty()
            && self.user_code.len() <= 100
            && self
                .user_code
                .chars()
                .all(|char| char == ' ' || char.is_ascii_graphic());
        if !visible || !of_the_web(&self.verification_uri) {
            return None;
        }
        let interval = self.interval.map_or(DEFAULT_INTERVAL, Duration::from_secs);
        let patience = Duration::from_secs(self.expires_in).min(MAX_PATIENCE);
        Some(DeviceAuthorization {
            user_code: self.user_code,
            verification_uri: self.verification_uri,
            verification_uri_complete: self.verification_uri_complete.filter(of_the_web),
            device_id,
            device_code: self.device_code,
            interval: interval.clamp(Duration::from_secs(1), MAX_INTERVAL),
            until: Instant::now() + patience,
        })
    }
}
