//! Which logins a homeserver offers.

use mx_transport::{Homeserver, OAuthError};
use ruma::api::client::session::get_login_types;

use crate::{ClientBuilder, Result};

/// Which logins a homeserver offers.
///
/// ```no_run
/// # async fn example() -> mx_e2ee::Result<()> {
/// let kinds = mx_e2ee::Client::builder().homeserver("example.org").login_kinds().await?;
/// println!("by password: {}, in a browser: {}", kinds.password, kinds.sso || kinds.device_code);
/// println!("all that it names: {}", kinds.names.join(", "));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoginKinds {
    /// By user name and password.
    pub password: bool,
    /// By a token that single sign-on, or another device, gives.
    pub token: bool,
    /// By single sign-on.
    pub sso: bool,
    /// By OAuth 2.0, with a code that is typed elsewhere.
    pub device_code: bool,
    /// The names of all of them, as the homeserver says.
    pub names: Vec<String>,
}

impl ClientBuilder {
    /// Which logins the homeserver offers.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// let kinds = mx_e2ee::Client::builder().homeserver("example.org").login_kinds().await?;
    /// let way = match (kinds.password, kinds.sso) {
    ///     (true, _) => "mx login",
    ///     (false, true) => "mx login --sso",
    ///     (false, false) => "another way",
    /// };
    /// println!("log in with {way}; it offers {}", kinds.names.join(", "));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the request.
    pub async fn login_kinds(&self) -> Result<LoginKinds> {
        let found = self.discover().await?;
        kinds(&Homeserver::new(&found.base_url, self.way()?)?).await
    }
}

pub(super) async fn kinds(homeserver: &Homeserver) -> Result<LoginKinds> {
    let mut kinds = LoginKinds::default();
    match homeserver.send(get_login_types::v3::Request::new()).await {
        Ok(answer) => {
            for flow in answer.flows {
                match flow {
                    get_login_types::v3::LoginType::Password(_) => kinds.password = true,
                    get_login_types::v3::LoginType::Token(_) => kinds.token = true,
                    get_login_types::v3::LoginType::Sso(_) => kinds.sso = true,
                    _ => {}
                }
                kinds.names.push(flow.login_type().to_owned());
            }
        }
        // A homeserver that has an authorization server only.
        Err(error) if matches!(error.code(), "unsupported_by_homeserver" | "not_found") => {}
        Err(error) => return Err(error.into()),
    }
    match homeserver.authorization_server().await {
        Ok(server) => {
            kinds.device_code = server.offers_device_codes();
            kinds.names.push("OAuth 2.0".to_owned());
        }
        Err(OAuthError::NotOffered) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(kinds)
}
