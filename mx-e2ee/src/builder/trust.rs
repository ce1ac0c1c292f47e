//! Whom a client believes.

use std::sync::Arc;

use mx_olm_orchestrator::{self as orchestrator, Accept, ManifestFile, TrustManifest};

use super::ClientBuilder;
use crate::{Finding, FindingCode};

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

    /// Who is who, in a file that counts as it is *now*: it is read before each send and with each sync, so that a change
    /// needs no restart, and its differences are told. A file that cannot be read, or is no manifest, refuses to open, and
    /// later every send and every sync, until it is mended: `trust_manifest_unreadable`, `trust_manifest_invalid`. Replace it
    /// in one step, by a rename: what is half written is no manifest.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, ManifestFile};
    ///
    /// let file = ManifestFile::new("/etc/mybot/trust.json");
    /// let bot = Client::builder().directory("/var/lib/mybot").trust_manifest_file(file).open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn trust_manifest_file(mut self, file: ManifestFile) -> Self {
        self.options.trust_manifest_file = Some(file);
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

    /// For a checkup: where the manifest cannot be read, that is a finding of its own, and keeps nobody from looking at the
    /// rest. What differed from it stays noted.
    pub(crate) fn without_broken_manifest(mut self) -> Self {
        let Some(Err(error)) = self.options.trust_manifest_file.as_ref().map(ManifestFile::load) else {
            return self;
        };
        if let Some(file) = self.options.trust_manifest_file.take() {
            let finding = Finding::of(FindingCode::TrustManifestUnreadable).about(file.path.display());
            self.manifest_unreadable = Some(finding.because(&orchestrator::Error::from(error).into()));
            self.options.trust_manifest_unreadable = true;
        }
        self
    }
}
