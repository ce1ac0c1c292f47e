//! How the device is: its keys, and the events that wait for theirs.

use mx_olm_orchestrator::{Explanation, Health, KeyStatus, Undecryptable, WaitingCounts};

use super::Client;
use crate::Result;

impl Client {
    /// Why an event cannot be read, and what would mend it.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, event: mx_e2ee::Undecryptable) -> mx_e2ee::Result<()> {
    /// let why = client.explain(&event).await?;
    /// why.findings.iter().for_each(|finding| println!("- {finding}"));
    /// println!("{}", why.advice);
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, event: mx_e2ee::Undecryptable) -> mx_e2ee::Result<()> {
    /// if event.reason.may_still_come() && !client.request_key(&event).await? {
    ///     println!("{} does not wait any more", event.event_id);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, of the store.
    pub async fn request_key(&self, event: &Undecryptable) -> Result<bool> {
        Ok(self.0.device.request_key(event).await?)
    }

    /// At most `limit` events that wait for their keys, oldest first, leaving out the first `skip`.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // In pages of 100.
    /// let mut skip = 0;
    /// loop {
    ///     let page = client.waiting(skip, 100).await?;
    ///     if page.is_empty() {
    ///         break;
    ///     }
    ///     page.iter().for_each(|event| println!("{} of {}: {}", event.event_id, event.sender, event.advice));
    ///     skip += page.len();
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn waiting(&self, skip: usize, limit: usize) -> Result<Vec<Undecryptable>> {
        Ok(self.0.device.waiting(skip, limit).await?)
    }

    /// How many events wait for their keys, and how many of them were reported.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let counts = client.waiting_counts().await?;
    /// println!("{} wait, of which the app was told of {}", counts.waiting, counts.reported);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn waiting_counts(&self) -> Result<WaitingCounts> {
        Ok(self.0.device.waiting_counts().await?)
    }

    /// Our device's keys, here and on the homeserver.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// let keys = client.key_status().await?;
    /// println!("compare this by another way: {} {}", keys.device_id, keys.ed25519);
    /// if !keys.published || keys.one_time_keys == 0 {
    ///     client.publish_keys().await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, of the store.
    pub async fn key_status(&self) -> Result<KeyStatus> {
        Ok(self.0.device.key_status().await?)
    }

    /// Publish our device's keys and top up its one-time keys; every sync does this too.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// match client.publish_keys().await {
    ///     // Two stores of one device: see `acknowledge_key_conflict` before anything is sent again.
    ///     Err(error) if error.code() == "one_time_key_conflict" => println!("{error}"),
    ///     published => published?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Orchestrator::publish_keys`](mx_olm_orchestrator::Orchestrator::publish_keys).
    pub async fn publish_keys(&self) -> Result<()> {
        Ok(self.0.device.publish_keys().await?)
    }

    /// How the device is: what an operator should know and do. Nothing is sent.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Health;
    ///
    /// // Cheap enough for a health check of every minute.
    /// match client.health().await? {
    ///     Health::Ok => println!("ok"),
    ///     Health::Degraded { problems } => {
    ///         for problem in problems {
    ///             println!("{} since {:?}: {}", problem.code, problem.since_ms, problem.advice);
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn health(&self) -> Result<Health> {
        Ok(self.0.device.health().await?)
    }

    /// Go on with this store after a conflict of one-time keys. As
    /// [`Orchestrator::acknowledge_key_conflict`](mx_olm_orchestrator::Orchestrator::acknowledge_key_conflict).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // Only after the other copy of this store was stopped for good, by whoever made it.
    /// client.acknowledge_key_conflict().await?;
    /// client.sync().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request, of the store.
    pub async fn acknowledge_key_conflict(&self) -> Result<()> {
        Ok(self.0.device.acknowledge_key_conflict().await?)
    }
}
