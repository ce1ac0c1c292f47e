//! How the device is: its keys, and the events that wait for theirs.

use mx_olm_orchestrator::{Explanation, Health, KeyStatus, Undecryptable, WaitingCounts};

use super::Client;
use crate::Result;

impl Client {
    /// Why an event cannot be read, and what would mend it.
    ///
    /// # Errors
    /// Of the store.
    pub async fn explain(&self, event: &Undecryptable) -> Result<Explanation> {
        Ok(self.0.device.explain(event).await?)
    }

    /// Ask our other devices for the key of an event that waits for it. Verified ones that allow it
    /// ([`Options::key_requests`](crate::Options::key_requests)) give it, and the event is delivered. Returns whether it
    /// waits.
    ///
    /// # Errors
    /// Of the request, of the store.
    pub async fn request_key(&self, event: &Undecryptable) -> Result<bool> {
        Ok(self.0.device.request_key(event).await?)
    }

    /// At most `limit` events that wait for their keys, oldest first, leaving out the first `skip`.
    ///
    /// # Errors
    /// Of the store.
    pub async fn waiting(&self, skip: usize, limit: usize) -> Result<Vec<Undecryptable>> {
        Ok(self.0.device.waiting(skip, limit).await?)
    }

    /// How many events wait for their keys, and how many of them were reported.
    ///
    /// # Errors
    /// Of the store.
    pub async fn waiting_counts(&self) -> Result<WaitingCounts> {
        Ok(self.0.device.waiting_counts().await?)
    }

    /// Our device's keys, here and on the homeserver.
    ///
    /// # Errors
    /// Of the request, of the store.
    pub async fn key_status(&self) -> Result<KeyStatus> {
        Ok(self.0.device.key_status().await?)
    }

    /// Publish our device's keys and top up its one-time keys; every sync does this too.
    ///
    /// # Errors
    /// As [`Orchestrator::publish_keys`].
    pub async fn publish_keys(&self) -> Result<()> {
        Ok(self.0.device.publish_keys().await?)
    }

    /// How the device is: what an operator should know and do. Nothing is sent.
    ///
    /// # Errors
    /// Of the store.
    pub async fn health(&self) -> Result<Health> {
        Ok(self.0.device.health().await?)
    }

    /// Go on with this store after a conflict of one-time keys. As [`Orchestrator::acknowledge_key_conflict`].
    ///
    /// # Errors
    /// Of the request, of the store.
    pub async fn acknowledge_key_conflict(&self) -> Result<()> {
        Ok(self.0.device.acknowledge_key_conflict().await?)
    }
}
