//! From the name of a server to the address of its homeserver.
//!
//! From the client-server API, "Well-known URI": `https://<name>/.well-known/matrix/client` says where the homeserver is.
//! What it says is checked: an address, and a homeserver that answers there.
//!
//! # Whom one believes
//! Whoever answers for the name decides where the password goes, and so it is asked over `https` only (a name of this very
//! machine over `http`), a redirect is followed only when that is asked for, and what came out is in [`Discovered`], to be
//! shown to somebody. What is no answer is an error, and no guess.

mod error;

use std::{net::Ipv6Addr, sync::Arc};

use bytes::Bytes;
use http::{StatusCode, header};
use ruma::{ServerName, UserId};
use serde::Deserialize;
use url::Url;

pub use self::error::DiscoveryError;
use crate::{Endpoint, Homeserver, ShowRedirects, Transport, TransportError, TransportErrorKind, fetch::fetch};

/// More than this is no address, in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// How many redirects are followed, where they are.
const MAX_REDIRECTS: usize = 5;

/// Where a homeserver is, and who says so.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # let transport = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
/// use mx_transport::Discovery;
///
/// // An address is taken at its word: nothing is sent, and nobody but who gave it says so.
/// let found = Discovery::new(transport).find("https://matrix.example.org/").await?;
/// assert_eq!(found.base_url, "https://matrix.example.org");
/// assert_eq!((found.server_name, found.said_by), (None, None));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discovered {
    /// The homeserver's address.
    pub base_url: String,
    /// The name that was asked. `None`: an address was given.
    pub server_name: Option<String>,
    /// Who named the address: the last page that was read. `None`: nobody, and it is the name itself.
    pub said_by: Option<Url>,
}

/// Finds homeservers.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use mx_transport::{Discovery, DiscoveryError, Transport};
/// # async fn example(transport: Arc<dyn Transport>) -> Result<(), DiscoveryError> {
/// let found = Discovery::new(transport).find("@bot:example.org").await?;
/// println!("the password would go to {}, as {:?} says", found.base_url, found.said_by);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Discovery {
    transport: Arc<dyn Transport>,
    follow_redirects: bool,
}

#[derive(Deserialize)]
struct WellKnown {
    #[serde(rename = "m.homeserver")]
    homeserver: Option<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    base_url: Option<String>,
}

impl Discovery {
    /// Asks through this transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            follow_redirects: false,
        }
    }

    /// Follow redirects of a well-known page, five of them, and only to `https`. Whoever is redirected to decides where the
    /// password goes: [`Discovered::said_by`] says who that was.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # async fn example(transport: Arc<dyn mx_transport::Transport>) -> Result<(), mx_transport::DiscoveryError> {
    /// use mx_transport::{Discovery, DiscoveryError};
    ///
    /// let found = match Discovery::new(transport.clone()).find("example.org").await {
    ///     // A person has looked at where it goes.
    ///     Err(DiscoveryError::Redirected { .. }) => Discovery::new(transport).follow_redirects(true).find("example.org").await?,
    ///     found => found?,
    /// };
    /// println!("{} says {}", found.said_by.map_or_else(String::new, |page| page.to_string()), found.base_url);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn follow_redirects(mut self, follow: bool) -> Self {
        self.follow_redirects = follow;
        self
    }

    /// The homeserver that somebody means: an address (`https://matrix.example.org`), the name of a server
    /// (`example.org`), or a user id (`@bot:example.org`). An address is taken as it is, without a request.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    ///
    /// # Cancel safety
    /// Safe: nothing is kept.
    pub async fn find(&self, given: &str) -> Result<Discovered, DiscoveryError> {
        let given = given.trim();
        if given.contains("://") {
            let homeserver = Homeserver::new(given, Arc::clone(&self.transport)).map_err(DiscoveryError::Address)?;
            return Ok(Discovered {
                base_url: homeserver.base_url().to_owned(),
                server_name: None,
                said_by: None,
            });
        }
        let invalid = || DiscoveryError::NoServerName {
            given: given.chars().filter(|char| !char.is_control()).take(100).collect(),
        };
        if given.starts_with('@') {
            let user = <&UserId>::try_from(given).map_err(|_| invalid())?;
            return self.find_by_name(user.server_name()).await;
        }
        self.find_by_name(<&ServerName>::try_from(given).map_err(|_| invalid())?)
            .await
    }

    /// The homeserver of a server name. It has answered.
    ///
    /// ```no_run
    /// # async fn example(discovery: mx_transport::Discovery) -> Result<(), mx_transport::DiscoveryError> {
    /// use ruma::user_id;
    ///
    /// // Of a user whose id is known to be one.
    /// let found = discovery.find_by_name(user_id!("@bot:example.org").server_name()).await?;
    /// assert_eq!(found.server_name.as_deref(), Some("example.org"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`DiscoveryError`].
    ///
    /// # Cancel safety
    /// Safe: nothing is kept.
    pub async fn find_by_name(&self, name: &ServerName) -> Result<Discovered, DiscoveryError> {
        let local = is_local(name);
        let scheme = if local { "http" } else { "https" };
        // By the specification the port of a name is not that of its pages; a machine's own services have one each.
        let authority = if local { name.as_str() } else { name.host() };
        let first = Url::parse(&format!("{scheme}://{authority}/.well-known/matrix/client")).map_err(|_| {
            DiscoveryError::NoServerName {
                given: name.to_string(),
            }
        })?;
        let (said, said_by) = match self.well_known(first).await? {
            Some((said, by)) => (said, Some(by)),
            // No page: the name may be the homeserver's own.
            None => (format!("{scheme}://{name}"), None),
        };
        let address = address(&said, local).ok_or_else(|| DiscoveryError::NoAddress {
            said_by: said_by.as_ref().map(ToString::to_string).unwrap_or_default(),
            said: said.chars().filter(|char| !char.is_control()).take(200).collect(),
        })?;
        let homeserver =
            Homeserver::new(address.as_str(), Arc::clone(&self.transport)).map_err(DiscoveryError::Address)?;
        let base_url = homeserver.base_url().to_owned();
        if let Err(source) = homeserver.versions().await {
            return Err(DiscoveryError::NoHomeserver { base_url, source });
        }
        Ok(Discovered {
            base_url,
            server_name: Some(name.to_string()),
            said_by,
        })
    }

    /// The address that a page names, and which page it was in the end. `None`: there is no such page.
    async fn well_known(&self, first: Url) -> Result<Option<(String, Url)>, DiscoveryError> {
        let asked = first.to_string();
        let nonsense = |what: &str| DiscoveryError::NoAnswer {
            asked: asked.clone(),
            what: what.to_owned(),
        };
        let mut page = first;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.fetch(&page).await.map_err(|source| match source.kind() {
                TransportErrorKind::BodyTooLarge => nonsense("more than an address is long"),
                TransportErrorKind::Redirect => DiscoveryError::Redirected {
                    asked: asked.clone(),
                    to: String::new(),
                },
                _ => DiscoveryError::Unreachable {
                    asked: asked.clone(),
                    source,
                },
            })?;
            let status = answer.status();
            if status.is_redirection() {
                page = self.redirected(&asked, &page, &answer)?;
                continue;
            }
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            if status != StatusCode::OK {
                return Err(nonsense(&format!("a status of {}", status.as_u16())));
            }
            let said: WellKnown = serde_json::from_slice(answer.body())
                .map_err(|_| nonsense("something that is not JSON of this form"))?;
            let base_url = said.homeserver.and_then(|entry| entry.base_url);
            return Ok(Some((base_url.ok_or_else(|| nonsense("no homeserver"))?, page)));
        }
        Err(nonsense("one redirect after the other"))
    }

    /// Where a redirect leads, if it is to be followed.
    fn redirected(&self, asked: &str, page: &Url, answer: &http::Response<Bytes>) -> Result<Url, DiscoveryError> {
        let location = answer
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let to = location.and_then(|location| page.join(location).ok());
        let safe = |to: &Url| to.scheme() == "https" || (page.scheme() == "http" && to.host() == page.host());
        match to {
            Some(to) if self.follow_redirects && safe(&to) => Ok(to),
            to => Err(DiscoveryError::Redirected {
                asked: asked.to_owned(),
                to: to.map(|to| to.origin().ascii_serialization()).unwrap_or_default(),
            }),
        }
    }

    async fn fetch(&self, page: &Url) -> Result<http::Response<Bytes>, TransportError> {
        let build = |error: http::Error| TransportError::with_source(TransportErrorKind::Build, error);
        let mut request = http::Request::get(page.as_str())
            .header(header::ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(build)?;
        request.extensions_mut().insert(Endpoint("/.well-known/matrix/client"));
        request.extensions_mut().insert(ShowRedirects);
        fetch(&self.transport, request, MAX_BYTES).await
    }
}

/// The address that a page names, if passwords may go there.
fn address(said: &str, local: bool) -> Option<Url> {
    let url = Url::parse(said.trim()).ok()?;
    (url.scheme() == "https" || (local && url.scheme() == "http")).then_some(url)
}

/// Names of this very machine.
fn is_local(name: &ServerName) -> bool {
    let host = name.host();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host == "localhost"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
