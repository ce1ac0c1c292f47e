//! Whom a client believes.

use std::sync::Arc;

use mx_olm_orchestrator::{Accept, TrustManifest};

use super::ClientBuilder;

impl ClientBuilder {
    /// Who is who: nothing is sent to a room while a reader differs from this list, and differences are told. Give it again
    /// whenever the client is opened. Messages of others are still given out: see [`accept`](Self::accept).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_e2ee::{Accept, Client, TrustManifest};
    ///
    /// let manifest = TrustManifest::parse(&std::fs::read_to_string("/etc/mybot/trust.json")?)?;
    /// let bot = Client::builder().directory("/var/lib/mybot").trust_manifest(manifest).accept(Accept::Verified).open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trust_manifest(mut self, manifest: TrustManifest) -> Self {
        self.options.trust_manifest = Some(Arc::new(manifest));
        self
    }

    /// Whose messages are given out. Default: everybody's, each with how far its device is known.
    #[must_use]
    pub const fn accept(mut self, accept: Accept) -> Self {
        self.options.accept = accept;
        self
    }
}
