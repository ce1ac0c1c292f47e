//! What the homeserver supports: versions of the specification and unstable features, asked for once in a while.
//!
//! # Why it is asked again
//! A bot runs for months, and its homeserver is updated meanwhile. What was said counts for [`FRESH`]; when it cannot be
//! asked again then, the old answer goes on, since a homeserver that fails has not lost a feature. One request asks, and
//! no longer than [`PATIENCE`]; the others do not wait for it.

use std::{
    sync::{Arc, Mutex as StdMutex, PoisonError, RwLock},
    time::Duration,
};

use ruma::api::{
    FeatureFlag, SupportedVersions, auth_scheme::SendAccessToken, client::discovery::get_supported_versions,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{Call, Homeserver, decode, endpoint, until::Until};
use crate::{Phase, RequestError, TransportError, TransportErrorKind as Kind};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(6 * 60 * 60);
/// After asking again failed, it is tried again this much later.
const PAUSE: Duration = Duration::from_secs(60);
/// Asking again takes no longer than this: there is an answer already.
const PATIENCE: Duration = Duration::from_secs(10);
/// A transport that keeps deadlines is not cut off.
const GRACE: Duration = Duration::from_millis(250);

/// What is known, shared by all who speak to one homeserver.
#[derive(Debug, Default)]
pub(super) struct Versions {
    known: RwLock<Option<(Arc<SupportedVersions>, Instant)>>,
    asking: Mutex<()>,
    failed: StdMutex<Failed>,
}

/// What became of asking when nothing was known.
#[derive(Debug, Default)]
struct Failed {
    times: u64,
    error: Option<RequestError>,
}

impl Versions {
    /// What is known, and whether it is still fresh.
    fn known(&self) -> Option<(Arc<SupportedVersions>, bool)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (versions, until) = known.as_ref()?;
        Some((Arc::clone(versions), Instant::now() < *until))
    }

    fn know(&self, versions: &Arc<SupportedVersions>, lifetime: Duration) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Arc::clone(versions), Instant::now() + lifetime));
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, Failed> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of asking since it had failed so often: who waited for the same answer is told the same.
    fn failed_since(&self, times: u64) -> Option<RequestError> {
        let failed = self.failed();
        failed
            .error
            .as_ref()
            .filter(|_| failed.times > times)
            .map(RequestError::again)
    }
}

impl Homeserver {
    /// What the homeserver supports, asked for once in six hours. Of its unstable features those that are on are listed in
    /// `features`; [`supports`](Self::supports) looks one up.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let transcript = [r#"{"mx-transcript":1}"#, r#"{"method":"GET","path":"/_matrix/client/versions","answer":{"status":200,"headers":[["content-type","application/json"]],"body":{"text":"{\"versions\":[\"v1.1\",\"v1.11\"]}"}}}"#].join("\n");
    /// # let transport = std::sync::Arc::new(mx_transport::Replay::from_transcript(&transcript)?);
    /// # let homeserver = mx_transport::Homeserver::new("https://matrix.example.org", transport)?;
    /// use ruma::api::MatrixVersion;
    ///
    /// assert!(homeserver.versions().await?.versions.contains(&MatrixVersion::V1_11));
    /// // The second time nobody is asked.
    /// homeserver.versions().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, while nothing is known. Later the last answer goes on.
    pub async fn versions(&self) -> Result<Arc<SupportedVersions>, RequestError> {
        self.versions_by(Until::default()).await
    }

    pub(super) async fn versions_by(&self, until: Until) -> Result<Arc<SupportedVersions>, RequestError> {
        if let Some((versions, true)) = self.0.versions.known() {
            return Ok(versions);
        }
        // Boxed, since it is rare and would make every request larger.
        Box::pin(self.versions_again(until)).await
    }

    async fn versions_again(&self, until: Until) -> Result<Arc<SupportedVersions>, RequestError> {
        let state = &self.0.versions;
        if let Some((old, _)) = state.known() {
            let Ok(_asking) = state.asking.try_lock() else {
                return Ok(old);
            };
            return Ok(self.ask_again(old, until).await);
        }
        let failed = state.failed().times;
        let _asking = until.wait(state.asking.lock()).await?;
        if let Some((versions, _)) = state.known() {
            return Ok(versions);
        }
        if let Some(error) = state.failed_since(failed) {
            return Err(error);
        }
        match self.ask_for_versions(until).await {
            Ok(versions) => {
                state.know(&versions, FRESH);
                Ok(versions)
            }
            Err(error) => {
                // Who has less patience than others speaks for nobody else.
                if until.left().is_none_or(|left| !left.is_zero()) {
                    let mut failed = state.failed();
                    failed.times += 1;
                    failed.error = Some(error.again());
                }
                Err(error)
            }
        }
    }

    /// Ask again, where something is known already. For the only one who asks.
    async fn ask_again(&self, old: Arc<SupportedVersions>, until: Until) -> Arc<SupportedVersions> {
        let state = &self.0.versions;
        if let Some((versions, true)) = state.known() {
            // Another task has asked meanwhile.
            return versions;
        }
        let (versions, lifetime) = match self.ask_for_versions(until.half().and_at_most(PATIENCE)).await {
            Ok(versions) => (versions, FRESH),
            Err(error) => {
                tracing::warn!(
                    code = error.code(),
                    "what the homeserver supports cannot be asked again"
                );
                (old, PAUSE)
            }
        };
        state.know(&versions, lifetime);
        versions
    }

    /// Ask again what the homeserver supports, as after it was updated.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), mx_transport::RequestError> {
    /// let before = homeserver.versions().await?;
    /// // The operator says that the homeserver was updated.
    /// let now = homeserver.refresh_versions().await?;
    /// println!("new: {:?}", now.versions.difference(&before.versions).collect::<Vec<_>>());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request: what was known stays.
    pub async fn refresh_versions(&self) -> Result<Arc<SupportedVersions>, RequestError> {
        let _asking = self.0.versions.asking.lock().await;
        let versions = self.ask_for_versions(Until::default()).await?;
        self.0.versions.know(&versions, FRESH);
        Ok(versions)
    }

    /// Whether the homeserver has switched an unstable feature on, as in `org.matrix.simplified_msc3575`.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
    /// if homeserver.supports("org.matrix.simplified_msc3575").await? {
    ///     println!("sliding sync is on");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`versions`](Self::versions).
    pub async fn supports(&self, feature: &str) -> Result<bool, RequestError> {
        let versions = self.versions().await?;
        Ok(versions.features.contains(&FeatureFlag::from(feature)))
    }

    async fn ask_for_versions(&self, until: Until) -> Result<Arc<SupportedVersions>, RequestError> {
        let request = get_supported_versions::Request::new();
        let nothing = SupportedVersions::from_parts(&[], &Default::default());
        let endpoint = endpoint::<get_supported_versions::Request>(&nothing)?;
        let http: http::Request<Vec<u8>> =
            ruma::api::OutgoingRequest::try_into_http_request(request, self.base_url(), SendAccessToken::None, ())
                .map_err(RequestError::build)?;
        let call = Call {
            deadline: until.left(),
            ..Call::default()
        };
        let asked = self.raw(http, call, endpoint);
        let response = match call.deadline {
            // What is inside may say itself, and better, that the time is up.
            Some(left) => timeout(left + GRACE, asked)
                .await
                .unwrap_or_else(|_| Err(TransportError::new(Kind::Timeout(Phase::Total)).into()))?,
            None => asked.await?,
        };
        let response: get_supported_versions::Response = decode::<get_supported_versions::Request>(response, endpoint)?;
        Ok(Arc::new(response.as_supported_versions()))
    }
}

#[cfg(test)]
mod tests;
