//! How rooms come and who is in them: whose invitations are accepted, and what is told.

use super::ClientBuilder;
use crate::Invites;

impl ClientBuilder {
    /// Whose invitations are accepted while receiving. Default: nobody's.
    #[must_use]
    pub fn accept_invites(mut self, invites: Invites) -> Self {
        self.invites = invites;
        self
    }

    /// Whether it is told who comes to rooms and who goes. Default: no, since a large room has more of that than of messages.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, Event, ruma::events::room::member::MembershipState};
    /// use std::time::Duration;
    ///
    /// let bot = Client::builder().directory("/var/lib/doorman").memberships(true).open().await?;
    /// for event in bot.receive(Duration::from_secs(30)).await? {
    ///     if let Event::MembershipChanged(changed) = event
    ///         && changed.membership == MembershipState::Join
    ///     {
    ///         bot.room(&changed.room_id).send_text(&format!("welcome, {}", changed.user_id)).await?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn memberships(mut self, told: bool) -> Self {
        self.options.memberships = told;
        self
    }
}
