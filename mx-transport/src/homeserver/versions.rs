//! What the homeserver supports: versions of the specification and unstable features, asked for once in a while.
//!
//! # Why it is asked again
//! A bot runs for months, and its homeserver is updated meanwhile. What was said counts for [`FRESH`]; when it cannot be
//! asked again then, the old answer goes on, since a homeserver that fails has not lost a feature.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use ruma::api::{
    FeatureFlag, SupportedVersions, auth_scheme::SendAccessToken, client::discovery::get_supported_versions,
};
use tokio::{sync::Mutex, time::Instant};

use super::{Call, Homeserver, decode, endpoint};
use crate::RequestError;

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(6 * 60 * 60);
/// After asking again failed, it is tried again this much later.
const PAUSE: Duration = Duration::from_secs(60);

/// What is known, shared by all who speak to one homeserver.
#[derive(Debug, Default)]
pub(super) struct Versions {
    known: RwLock<Option<(Arc<SupportedVersions>, Instant)>>,
    asking: Mutex<()>,
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
}

impl Homeserver {
    /// What the homeserver supports, asked for once in six hours. Of its unstable features those that are on are listed in
    /// `features`; [`supports`](Self::supports) looks one up.
    ///
    /// # Errors
    /// Of the request, while nothing is known. Later the last answer goes on.
    pub async fn versions(&self) -> Result<Arc<SupportedVersions>, RequestError> {
        if let Some((versions, true)) = self.0.versions.known() {
            return Ok(versions);
        }
        // Boxed, since it is rare and would make every request larger.
        Box::pin(self.versions_again()).await
    }

    async fn versions_again(&self) -> Result<Arc<SupportedVersions>, RequestError> {
        let _asking = self.0.versions.asking.lock().await;
        let old = match self.0.versions.known() {
            // Another task has asked meanwhile.
            Some((versions, true)) => return Ok(versions),
            Some((versions, false)) => Some(versions),
            None => None,
        };
        match (self.ask_for_versions().await, old) {
            (Err(error), Some(old)) => {
                tracing::warn!(
                    code = error.code(),
                    "what the homeserver supports cannot be asked again"
                );
                self.0.versions.know(&old, PAUSE);
                Ok(old)
            }
            (asked, _) => {
                let versions = asked?;
                self.0.versions.know(&versions, FRESH);
                Ok(versions)
            }
        }
    }

    /// Ask again what the homeserver supports, as after it was updated.
    ///
    /// # Errors
    /// Of the request: what was known stays.
    pub async fn refresh_versions(&self) -> Result<Arc<SupportedVersions>, RequestError> {
        let _asking = self.0.versions.asking.lock().await;
        let versions = self.ask_for_versions().await?;
        self.0.versions.know(&versions, FRESH);
        Ok(versions)
    }

    /// Whether the homeserver has switched an unstable feature on, as in `org.matrix.simplified_msc3575`.
    ///
    /// # Errors
    /// As [`versions`](Self::versions).
    pub async fn supports(&self, feature: &str) -> Result<bool, RequestError> {
        let versions = self.versions().await?;
        Ok(versions.features.contains(&FeatureFlag::from(feature)))
    }

    async fn ask_for_versions(&self) -> Result<Arc<SupportedVersions>, RequestError> {
        let request = get_supported_versions::Request::new();
        let nothing = SupportedVersions::from_parts(&[], &Default::default());
        let endpoint = endpoint::<get_supported_versions::Request>(&nothing)?;
        let http: http::Request<Vec<u8>> =
            ruma::api::OutgoingRequest::try_into_http_request(request, self.base_url(), SendAccessToken::None, ())
                .map_err(RequestError::build)?;
        let response = self.raw(http, Call::default(), endpoint).await?;
        let response: get_supported_versions::Response = decode::<get_supported_versions::Request>(response, endpoint)?;
        Ok(Arc::new(response.as_supported_versions()))
    }
}

#[cfg(test)]
mod tests;
