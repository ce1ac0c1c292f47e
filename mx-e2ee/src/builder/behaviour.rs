//! How a client behaves: how careful it is, to whom it sends, and what it asks the homeserver.

use mx_olm_orchestrator::{Options, Recipients, SyncSource};
use ruma::OwnedUserId;

use super::ClientBuilder;

impl ClientBuilder {
    /// How the device behaves, in everything: what was set before is replaced.
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
    #[must_use]
    pub const fn sync_source(mut self, source: SyncSource) -> Self {
        self.options.sync_source = source;
        self
    }

    /// Send to nobody but these users and ourselves: a room with another member refuses every send, by name. Give it again
    /// whenever the client is opened; a room's own list is kept with the room ([`Room::set_policy`](crate::Room::set_policy)).
    #[must_use]
    pub fn allow_only(mut self, users: impl IntoIterator<Item = OwnedUserId>) -> Self {
        self.options.allowed_recipients = Some(users.into_iter().collect());
        self
    }
}
