//! Application services: one token that speaks for many users, so that a fleet of bots lives in one process.
//!
//! From the application service API: the registration that a homeserver's operator installs, "Identity assertion" (who a
//! request is made as is in its query; the token stays in its header), and devices (MSC4326 and MSC4190, both in Matrix
//! 1.17), without which a bot that is spoken for could not encrypt.

use std::fmt;

use ruma::{OwnedDeviceId, OwnedUserId, ServerName, UserId, api::AppserviceUserIdentity};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{AccessToken, InvalidToken};

/// As whom an application service makes its requests.
///
/// ```
/// use mx_transport::Masquerade;
/// use ruma::{owned_device_id, owned_user_id};
///
/// let bot = Masquerade::user(owned_user_id!("@bot.one:example.org")).device(owned_device_id!("ONE"));
/// assert!(!bot.is_unstable());
/// // For a homeserver that knows the device by the name of MSC3202 only.
/// assert!(bot.unstable().is_unstable());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Masquerade {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device of that user. `None`: none, as before it is made.
    pub device_id: Option<OwnedDeviceId>,
    /// The device goes under the name that it had before Matrix 1.17 (MSC3202).
    unstable: bool,
}

impl Masquerade {
    /// As this user.
    #[must_use]
    pub const fn user(user_id: OwnedUserId) -> Self {
        Self {
            user_id,
            device_id: None,
            unstable: false,
        }
    }

    /// As this device of the user.
    #[must_use]
    pub fn device(mut self, device_id: OwnedDeviceId) -> Self {
        self.device_id = Some(device_id);
        self
    }

    /// For a homeserver of before Matrix 1.17, which knows the device as `org.matrix.msc3202.device_id`.
    #[must_use]
    pub const fn unstable(mut self) -> Self {
        self.unstable = true;
        self
    }

    /// Whether the homeserver is one of before Matrix 1.17.
    #[must_use]
    pub const fn is_unstable(&self) -> bool {
        self.unstable
    }

    /// Say in the address as whom a request is made.
    pub(crate) fn assert(&self, request: &mut http::Request<Vec<u8>>) -> Result<(), ruma::api::error::IntoHttpError> {
        let mut identity = AppserviceUserIdentity::new(&self.user_id);
        if !self.unstable {
            identity.device_id = self.device_id.as_deref();
        }
        identity.maybe_add_to_uri(request.uri_mut())?;
        if let (true, Some(device)) = (self.unstable, &self.device_id) {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("org.matrix.msc3202.device_id", device.as_str());
            let mut parts = request.uri().clone().into_parts();
            let path = parts
                .path_and_query
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            // There is a query: the user is in it.
            let path = format!("{path}&{}", query.finish());
            parts.path_and_query = Some(path.try_into().map_err(http::Error::from)?);
            *request.uri_mut() = parts.try_into().map_err(http::Error::from)?;
        }
        Ok(())
    }
}

/// Which users, rooms or aliases an application service is interested in.
///
/// ```
/// use mx_transport::Namespace;
///
/// // Beside the users that a registration has already: a room that the service only looks at.
/// let room = Namespace { exclusive: false, regex: r"!ops:example\.org".to_owned() };
/// assert_eq!(serde_json::to_value(&room)?, serde_json::json!({"exclusive": false, "regex": r"!ops:example\.org"}));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Nobody else may have them.
    pub exclusive: bool,
    /// A regular expression, of the whole id.
    pub regex: String,
}

/// All that an application service is interested in.
///
/// ```
/// use mx_transport::{Namespace, Namespaces};
///
/// let users = vec![Namespace { exclusive: true, regex: r"@bot\..*:example\.org".to_owned() }];
/// let namespaces = Namespaces { users, ..Namespaces::default() };
/// // What is empty is left out of the file.
/// assert!(serde_json::to_value(&namespaces)?.get("rooms").is_none());
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Users, which it may speak for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Namespace>,
    /// Aliases of rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Namespace>,
    /// Rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<Namespace>,
}

/// What the operator of a homeserver installs so that an application service may speak for its users. Its tokens are
/// hidden in debug output; serialized they are in the clear, as the homeserver needs them.
///
/// ```
/// use mx_transport::AppServiceRegistration;
/// use ruma::server_name;
///
/// // New tokens: write it to a file that only the homeserver's operator reads.
/// let registration = AppServiceRegistration::new("fleet", server_name!("example.org"), "bot.");
/// let file = serde_json::to_string_pretty(&registration)?;
/// assert_eq!(registration.namespaces.users[0].regex, r"@bot\..*:example\.org");
/// assert!(!format!("{registration:?}").contains(registration.hs_token()));
/// # drop(file);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct AppServiceRegistration {
    /// Its name, of which there is one on a homeserver, and which never changes.
    pub id: String,
    /// Where the homeserver sends events. `None`: nowhere, since bots sync.
    #[serde(default)]
    pub url: Option<String>,
    as_token: Zeroizing<String>,
    hs_token: Zeroizing<String>,
    /// Its own user, without `@` and server.
    pub sender_localpart: String,
    /// Whom it speaks for.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// Its users are not slowed down.
    #[serde(default)]
    pub rate_limited: Option<bool>,
    /// Its devices are made by `PUT /devices` and not by logging in (MSC4190), which a homeserver with an authorization
    /// server demands. Some homeservers want to be told.
    #[serde(rename = "io.element.msc4190", default, skip_serializing_if = "std::ops::Not::not")]
    pub device_management: bool,
    /// Its to-device events come with transactions (MSC3202), and not by sync. Not what we do.
    #[serde(rename = "org.matrix.msc3202", default, skip_serializing_if = "std::ops::Not::not")]
    pub to_device_by_transaction: bool,
}

impl AppServiceRegistration {
    /// A registration with new tokens, of an application service that speaks for every user of this server whose localpart
    /// begins with `prefix`.
    #[must_use]
    pub fn new(id: &str, server: &ServerName, prefix: &str) -> Self {
        let users = Namespace {
            exclusive: true,
            regex: format!("@{}.*:{}", escaped(prefix), escaped(server.as_str())),
        };
        Self {
            id: id.to_owned(),
            url: None,
            as_token: secret(),
            hs_token: secret(),
            sender_localpart: format!("{prefix}{id}"),
            namespaces: Namespaces {
                users: vec![users],
                ..Namespaces::default()
            },
            rate_limited: Some(false),
            device_management: true,
            to_device_by_transaction: false,
        }
    }

    /// The token that it speaks with.
    ///
    /// # Errors
    /// [`InvalidToken`] when a file holds something else.
    pub fn as_token(&self) -> Result<AccessToken, InvalidToken> {
        AccessToken::new(self.as_token.as_str())
    }

    /// The token that the homeserver speaks with.
    #[must_use]
    pub fn hs_token(&self) -> &str {
        &self.hs_token
    }

    /// Its own user on a server.
    #[must_use]
    pub fn sender(&self, server: &ServerName) -> Option<OwnedUserId> {
        UserId::parse(format!("@{}:{server}", self.sender_localpart)).ok()
    }
}

impl fmt::Debug for AppServiceRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppServiceRegistration")
            .field("id", &self.id)
            .field("sender_localpart", &self.sender_localpart)
            .field("namespaces", &self.namespaces)
            .finish_non_exhaustive()
    }
}

/// Two random UUIDs: 244 bits.
fn secret() -> Zeroizing<String> {
    let parts: Vec<String> = (0..2)
        .map(|_| ruma::TransactionId::new().as_str().replace('-', ""))
        .collect();
    Zeroizing::new(parts.concat())
}

/// A literal in a regular expression.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if !char.is_ascii_alphanumeric() && !matches!(char, '_' | '-' | '/' | '=') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use ruma::server_name;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_registration_is_what_homeservers_read_and_hides_its_tokens() {
        let made = AppServiceRegistration::new("fleet", server_name!("hs.test"), "bot.");
        let written = serde_json::to_value(&made).unwrap();
        let regex = "@bot\\..*:hs\\.test";
        assert_eq!(
            written["namespaces"],
            json!({"users": [{"exclusive": true, "regex": regex}]})
        );
        assert_eq!((&written["id"], &written["url"]), (&json!("fleet"), &json!(null)));
        assert_eq!(written["io.element.msc4190"], json!(true));
        assert_eq!(made.sender(server_name!("hs.test")).unwrap(), "@bot.fleet:hs.test");
        let token = made.as_token().unwrap();
        assert_eq!(written["as_token"], token.expose());
        assert!(token.expose().len() >= 64 && token.expose() != made.hs_token());
        let shown = format!("{made:?}");
        assert!(
            !shown.contains(token.expose()) && !shown.contains(made.hs_token()),
            "{shown}"
        );
        let other = AppServiceRegistration::new("fleet", server_name!("hs.test"), "bot.");
        assert_ne!(other.hs_token(), made.hs_token());
        let read: AppServiceRegistration = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
    }

    #[test]
    fn a_registration_of_others_is_read() {
        let text = json!({"id": "x", "url": "http://localhost:1", "as_token": "a", "hs_token": "h",
            "sender_localpart": "s", "namespaces": {"users": [{"exclusive": false, "regex": ".*", "group_id": "+g"}]},
            "protocols": [], "de.sorunome.msc2409.push_ephemeral": true});
        let read: AppServiceRegistration = serde_json::from_value(text).unwrap();
        assert_eq!(read.as_token().unwrap().expose(), "a");
        assert!(!read.device_management);
    }
}
