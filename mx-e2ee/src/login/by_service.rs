//! As an application service: it speaks for the user, who has no password.

use mx_transport::RequestError;
use ruma::{
    DeviceId, OwnedUserId,
    api::{MatrixVersion, client::account::whoami},
};

use super::{is_of_another_device, known_device, token};
use crate::{
    Client, ClientBuilder, Result,
    session::{Credentials, Kind, masquerade},
};

impl ClientBuilder {
    /// Log a user in whom an application service speaks for, with the service's own token. The user and the device are made
    /// where they are missing; with a store that was used before, the same device goes on.
    ///
    /// Where the homeserver lets the service make a device (MSC4190, Matrix 1.17), every request is made with the service's
    /// token as that device. Where it does not, the user is logged in, and has a token of its own.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, ruma::owned_user_id};
    ///
    /// let builder = Client::builder().homeserver("https://matrix.example.org").directory("/var/lib/fleet/one");
    /// let bot = builder.login_as_service("as_token", owned_user_id!("@bot.one:example.org")).await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyLoggedIn`](crate::Error::AlreadyLoggedIn); of the request: of its codes, `exclusive` where the
    /// service does not own the user; of the store.
    pub async fn login_as_service(self, as_token: &str, user: OwnedUserId) -> Result<Client> {
        let prepared = self.prepare_login().await?;
        let as_token = token(as_token)?;
        let homeserver = prepared.homeserver.clone();
        homeserver.register_by_appservice(&as_token, user.localpart()).await?;
        let known = known_device(&prepared.store).await?;
        let versions = homeserver.versions().await?;
        let unstable = !versions.versions.iter().any(|version| *version >= MatrixVersion::V1_17);
        let device = known.clone().unwrap_or_else(DeviceId::new);
        homeserver.masquerade(as_token.clone(), masquerade(&user, None, unstable));
        match homeserver.make_device(&device, &self.name_of_device()).await {
            Ok(()) => {}
            Err(RequestError::Api { status, .. }) if matches!(status.as_u16(), 403..=405) => {
                let name = self.name_of_device();
                let answer = homeserver
                    .login_by_appservice(&as_token, user, known.as_deref(), &name)
                    .await?;
                homeserver.stop_masquerading();
                return self.logged_in(prepared, answer).await;
            }
            Err(error) => return Err(error.into()),
        }
        let kind = Kind::AppService(masquerade(&user, Some(&device), unstable));
        let credentials = Credentials {
            tokens: as_token.into(),
            kind,
        };
        credentials.clone().give_to(&homeserver, None);
        // A homeserver that ignores whose device it is would make all devices of the fleet one.
        let who = homeserver.send(whoami::v3::Request::new()).await?;
        if who.user_id != user || who.device_id.as_ref() != Some(&device) {
            return Err(crate::Error::TokenWithoutDevice);
        }
        let finished = self.finish(prepared, user, device, credentials).await;
        debug_assert!(!is_of_another_device(&finished), "it was asked for by its own name");
        finished
    }
}
