//! How a client behaves: how careful it is, to whom it sends, and what it asks the homeserver.

use mx_olm_orchestrator::{Options, Recipients, SyncSource};
use ruma::OwnedUserId;

use super::ClientBuilder;

impl ClientBuilder {
    /// How the device behaves, in everything: what was set before is replaced.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, KeyRequests, Options};
    /// use std::time::Duration;
    ///
    /// let mut options = Options::default();
    /// options.undecryptable_after = Duration::from_secs(10);
    /// options.key_requests = KeyRequests::Verified;
    /// // Before `recipients`, `allow_only` and the like, which change one of them each.
    /// let bot = Client::builder().directory("/var/lib/mybot").options(options).open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How careful sends are, where neither the room nor the call says otherwise. Default: strict.
    #[must_use]
    pub const fn recipients(mut self, recipients: Recipients) -> Self {
        self.options.recipients = recipients;
        self
    }

    /// What is asked to learn what is new. Default: `/sync`.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, SyncSource};
    ///
    /// // For an account that is in thousands of rooms. Where the homeserver has no sliding sync, `/sync` is asked all the same.
    /// let bot = Client::builder().directory("/var/lib/mybot").sync_source(SyncSource::SlidingWhereOffered).open().await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn sync_source(mut self, source: SyncSource) -> Self {
        self.options.sync_source = source;
        self
    }

    /// Send to nobody but these users and ourselves: a room with another member refuses every send, by name. Give it again
    /// whenever the client is opened; a room's own list is kept with the room ([`Room::set_policy`](crate::Room::set_policy)).
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, ruma::owned_user_id};
    ///
    /// let boss = owned_user_id!("@boss:example.org");
    /// let bot = Client::builder().directory("/var/lib/mybot").allow_only([boss]).open().await?;
    /// let room = bot.room(&bot.resolve("#alerts:example.org").await?);
    /// if let Err(error) = room.send_text("db1 is down").await {
    ///     // Whoever else is in the room is named, and nothing was sent.
    ///     assert_eq!(error.code(), "recipient_not_allowed", "{error}");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn allow_only(mut self, users: impl IntoIterator<Item = OwnedUserId>) -> Self {
        self.options.allowed_recipients = Some(users.into_iter().collect());
        self
    }
}
