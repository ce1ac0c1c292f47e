//! Whom a client believes.

use std::{path::PathBuf, sync::Arc};

use mx_olm_orchestrator::{Accept, TrustManifest};

use super::ClientBuilder;
use crate::{Error, Finding, FindingCode};

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

    /// There is a list of who is who, in `file`, and it cannot be read: for a [checkup](Self::doctor), which says so and mends
    /// nothing. What differed from the list stays noted. Do not send with such a client: nobody holds the readers against
    /// the list.
    ///
    /// ```no_run
    /// # async fn example(builder: mx_e2ee::ClientBuilder) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Checkup, Error, FindingCode};
    ///
    /// let file = "/etc/mybot/trust.json";
    /// if let Err(source) = std::fs::read_to_string(file) {
    ///     let error = Error::File { path: file.into(), source };
    ///     let found = builder.trust_manifest_unreadable(file, &error).doctor(Checkup::default()).await?;
    ///     assert!(found.has(FindingCode::TrustManifestUnreadable));
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trust_manifest_unreadable(mut self, file: impl Into<PathBuf>, error: &Error) -> Self {
        let finding = Finding::of(FindingCode::TrustManifestUnreadable);
        self.manifest_unreadable = Some(finding.about(file.into().display()).because(error));
        self.options.trust_manifest_unreadable = true;
        self
    }

    /// Whose messages are given out. Default: everybody's, each with how far its device is known.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Accept, Client, Event, UndecryptableReason};
    /// use std::time::Duration;
    ///
    /// let bot = Client::builder().directory("/var/lib/mybot").accept(Accept::CrossSigned).open().await?;
    /// for event in bot.receive(Duration::from_secs(30)).await? {
    ///     // Messages of others wait, and are given out when their sender is accepted after all.
    ///     if let Event::Undecryptable(event) = event
    ///         && let UndecryptableReason::NotAccepted { trust } = event.reason
    ///     {
    ///         println!("{} is not listened to: {trust:?}", event.sender);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn accept(mut self, accept: Accept) -> Self {
        self.options.accept = accept;
        self
    }
}
