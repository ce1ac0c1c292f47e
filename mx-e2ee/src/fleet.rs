//! Many bots of one application service in one process: one transport, one directory each.

use std::{path::PathBuf, sync::Arc};

use mx_transport::Transport;
use ruma::{OwnedUserId, UserId};
use zeroize::Zeroizing;

use crate::{Client, ClientBuilder, Error, Result, Session};

/// The bots of an application service. Each is a device with a store of its own, under one directory; all of them use one
/// transport, and with it its connections.
///
/// ```no_run
/// # use std::sync::Arc;
/// # async fn example(transport: Arc<dyn mx_e2ee::transport::Transport>) -> mx_e2ee::Result<()> {
/// use mx_e2ee::{Fleet, ruma::user_id};
///
/// let fleet = Fleet::new("https://matrix.example.org", "as_token", "/var/lib/fleet", transport);
/// let one = fleet.bot(user_id!("@bot.one:example.org")).await?;
/// let two = fleet.bot(user_id!("@bot.two:example.org")).await?;
/// # drop((one, two));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Fleet {
    homeserver: String,
    as_token: Zeroizing<String>,
    directory: PathBuf,
    transport: Arc<dyn Transport>,
}

impl Fleet {
    /// The bots of the application service with this token.
    #[must_use]
    pub fn new(
        homeserver: impl Into<String>,
        as_token: impl Into<String>,
        directory: impl Into<PathBuf>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            homeserver: homeserver.into(),
            as_token: Zeroizing::new(as_token.into()),
            directory: directory.into(),
            transport,
        }
    }

    /// A bot: it goes on where it was, or is made. Its directory is named after its user id.
    ///
    /// # Errors
    /// Of the login, or of the store that is there.
    pub async fn bot(&self, user: &UserId) -> Result<Client> {
        self.bot_with(user, |builder| builder).await
    }

    /// The same for a bot that is not like the others: `change` sets what it needs.
    ///
    /// ```no_run
    /// # async fn example(fleet: mx_e2ee::Fleet) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Invites, ruma::user_id};
    ///
    /// let greeter = fleet.bot_with(user_id!("@bot.greeter:example.org"), |bot| {
    ///     bot.device_name("greeter").accept_invites(Invites::Everybody)
    /// });
    /// let greeter = greeter.await?;
    /// # drop(greeter);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`bot`](Self::bot).
    pub async fn bot_with(
        &self,
        user: &UserId,
        change: impl FnOnce(ClientBuilder) -> ClientBuilder + Send,
    ) -> Result<Client> {
        let directory = self.directory.join(name(user));
        let builder = Client::builder()
            .homeserver(&self.homeserver)
            .transport(Arc::clone(&self.transport))
            .directory(&directory);
        let builder = change(builder);
        match Session::of(&directory)? {
            Some(session) if session.user_id == user => builder.open().await,
            Some(session) => Err(Error::AlreadyLoggedIn {
                directory,
                user: session.user_id.to_string(),
            }),
            None => {
                let user: OwnedUserId = user.to_owned();
                builder.login_as_service(&self.as_token, user).await
            }
        }
    }
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("homeserver", &self.homeserver)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// A user id as a file's name, in which no two are the same: what could be a path, or be the same where a disk does not tell
/// large letters from small ones, is written as its bytes.
fn name(user: &UserId) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let mut name = String::new();
    for byte in user.as_str().bytes() {
        if plain(byte) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("={byte:02x}"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn users_have_names_that_are_no_paths() {
        assert_eq!(name(user_id!("@bot.a:hs.test")), "=40bot=2ea=3ahs=2etest");
        assert_eq!(name(user_id!("@a/../b:hs.test")), "=40a=2f=2e=2e=2fb=3ahs=2etest");
        assert_ne!(name(user_id!("@A:hs.test")), name(user_id!("@a:hs.test")));
    }
}
