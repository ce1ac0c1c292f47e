//! Which homeserver is meant, and who says where it is.

use mx_transport::{Discovered, Discovery, Homeserver};

use super::ClientBuilder;
use crate::{Error, Result};

impl ClientBuilder {
    /// Follow redirects when a server is asked where its homeserver is. Default: no, since whoever is redirected to decides
    /// where the password goes.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// let found = mx_e2ee::Client::builder().homeserver("example.org").follow_redirects(true).discover().await?;
    /// // A person should see who that was before a password goes there.
    /// println!("{} says that it is {}", found.said_by.map_or("nobody".to_owned(), |page| page.to_string()), found.base_url);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn follow_redirects(mut self, follow: bool) -> Self {
        self.follow_redirects = follow;
        self
    }

    /// Where the homeserver is that was named: by its address, by a server's name, or by a user id. Nothing is sent for an
    /// address. Show it to whoever logs in: it is where the password goes.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// let found = mx_e2ee::Client::builder().homeserver("@bot:example.org").discover().await?;
    /// println!("the password will go to {}", found.base_url);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Discovery`].
    pub async fn discover(&self) -> Result<Discovered> {
        let given = self.homeserver.as_deref().ok_or_else(|| Error::Configuration {
            what: "a client needs the name or the address of its homeserver".to_owned(),
        })?;
        Ok(self.discovery()?.find(given).await?)
    }

    /// A homeserver that is asked without a login.
    pub(crate) fn stranger_to(&self, url: &str) -> Result<Homeserver> {
        Ok(Homeserver::new(url, self.way()?)?)
    }

    pub(super) fn discovery(&self) -> Result<Discovery> {
        Ok(Discovery::new(self.way()?).follow_redirects(self.follow_redirects))
    }
}
