//! The authorization server that a homeserver names: its addresses, each of which is safe.

use ruma::{
    DeviceId,
    api::client::discovery::get_authorization_server_metadata::v1::{
        AccountManagementActionData, AuthorizationServerMetadata, DeviceDeleteData, DeviceViewData, GrantType,
    },
};
use url::{Host, Url};

use super::OAuthError;

/// An authorization server. All of its addresses are `https`, or of this very machine where the homeserver is too.
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
/// use ruma::device_id;
///
/// let server = homeserver.authorization_server().await?;
/// println!("logins by typed code: {}", server.offers_device_codes());
/// if let Some(page) = server.device_deletion_page(device_id!("OLDDEVICE")) {
///     println!("the owner of the account deletes it at {page}");
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct AuthorizationServer {
    metadata: AuthorizationServerMetadata,
    /// The names of scopes are those of the specification, and not those of before.
    pub(crate) stable_scopes: bool,
}

impl AuthorizationServer {
    /// The server that these metadata describe, named by a homeserver at this address.
    ///
    /// # Errors
    /// [`OAuthError::Unsafe`].
    pub(crate) fn new(
        metadata: AuthorizationServerMetadata,
        homeserver: &Url,
        stable_scopes: bool,
    ) -> Result<Self, OAuthError> {
        metadata.insecure_validate_urls().map_err(|error| OAuthError::Unsafe {
            what: error.to_string(),
        })?;
        let addresses = [
            Some(&metadata.issuer),
            Some(&metadata.authorization_endpoint),
            Some(&metadata.token_endpoint),
            Some(&metadata.revocation_endpoint),
            metadata.registration_endpoint.as_ref(),
            metadata.device_authorization_endpoint.as_ref(),
            metadata.account_management_uri.as_ref(),
        ];
        let local = is_loopback(homeserver);
        for address in addresses.into_iter().flatten() {
            let is_safe = address.scheme() == "https" || (local && address.scheme() == "http" && is_loopback(address));
            if !is_safe || !address.username().is_empty() || address.password().is_some() {
                return Err(OAuthError::Unsafe {
                    what: address.origin().ascii_serialization(),
                });
            }
        }
        Ok(Self {
            metadata,
            stable_scopes,
        })
    }

    /// Its name.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), mx_transport::OAuthError> {
    /// let server = homeserver.authorization_server().await?;
    /// // A name that it gave us before is good there, and nowhere else.
    /// println!("{}, with tokens from {}", server.issuer(), server.metadata().token_endpoint);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.metadata.issuer.as_str()
    }

    /// What the homeserver says of it.
    #[must_use]
    pub const fn metadata(&self) -> &AuthorizationServerMetadata {
        &self.metadata
    }

    /// Whether a person can type a code elsewhere to log a device in.
    #[must_use]
    pub fn offers_device_codes(&self) -> bool {
        self.metadata.device_authorization_endpoint.is_some()
            && self.metadata.grant_types_supported.contains(&GrantType::DeviceCode)
    }

    /// Where a person sees this device. `None`: there is no such page.
    ///
    /// ```no_run
    /// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), mx_transport::OAuthError> {
    /// let server = homeserver.authorization_server().await?;
    /// match server.device_page(ruma::device_id!("BOT")) {
    ///     Some(page) => println!("the bot's login is at {page}"),
    ///     None => println!("the account is at {:?}", server.account_page().map(|page| page.as_str())),
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn device_page(&self, device: &DeviceId) -> Option<Url> {
        let action = AccountManagementActionData::DeviceView(DeviceViewData::new(device));
        self.metadata.account_management_url_with_action(action)
    }

    /// Where a person deletes this device. `None`: there is no such page.
    #[must_use]
    pub fn device_deletion_page(&self, device: &DeviceId) -> Option<Url> {
        let action = AccountManagementActionData::DeviceDelete(DeviceDeleteData::new(device));
        self.metadata.account_management_url_with_action(action)
    }

    /// Where a person manages the account. `None`: there is no such page.
    #[must_use]
    pub fn account_page(&self) -> Option<&Url> {
        self.metadata.account_management_uri.as_ref()
    }

    /// All that a client of Matrix may do, as this device.
    pub(crate) fn scope(&self, device: &DeviceId) -> String {
        let prefix = if self.stable_scopes {
            "urn:matrix:client"
        } else {
            "urn:matrix:org.matrix.msc2967.client"
        };
        format!("{prefix}:api:* {prefix}:device:{device}")
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
