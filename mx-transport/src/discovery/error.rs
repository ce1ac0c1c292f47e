//! Why no homeserver was found, as the caller's next step.

use crate::{RequestError, TransportError, UrlError};

/// No homeserver was found. In each case the homeserver's address can be given instead.
///
/// ```no_run
/// # async fn example(discovery: mx_transport::Discovery) -> Result<(), mx_transport::DiscoveryError> {
/// use mx_transport::DiscoveryError;
///
/// match discovery.find("example.org").await {
///     Ok(found) => println!("{}", found.base_url),
///     Err(DiscoveryError::Redirected { to, .. }) => println!("is {to} to be trusted with the password?"),
///     Err(error) => return Err(error),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// This is neither an address, nor a server's name, nor a user id.
    #[error(
        "{given:?} is neither an address (https://matrix.example.org), nor a server (example.org), nor a user id (@bot:example.org)"
    )]
    NoServerName {
        /// What was given.
        given: String,
    },

    /// The address is none.
    #[error(transparent)]
    Address(UrlError),

    /// The server does not answer for its name.
    #[error("{asked} cannot be asked where the homeserver is: check the name, or give the homeserver's address")]
    Unreachable {
        /// The page.
        asked: String,
        /// Why.
        #[source]
        source: TransportError,
    },

    /// The server sends us elsewhere.
    #[error(
        "{asked} sends us to {to:?} to ask where the homeserver is, which is not followed unless you ask for it: give the \
         homeserver's address, or allow the redirect if that is a place to be trusted with your password"
    )]
    Redirected {
        /// The page.
        asked: String,
        /// Where to: scheme and host. Empty: it does not say, or nobody may know.
        to: String,
    },

    /// What the server says is no answer.
    #[error("{asked} does not say where the homeserver is, but {what}: give the homeserver's address")]
    NoAnswer {
        /// The page.
        asked: String,
        /// What it is instead.
        what: String,
    },

    /// What the server names is no address that is safe.
    #[error(
        "{said_by} says that the homeserver is {said:?}, which is no address that is safe: give the homeserver's address"
    )]
    NoAddress {
        /// The page.
        said_by: String,
        /// What it says.
        said: String,
    },

    /// There is no homeserver where one should be.
    #[error("there is no homeserver that answers at {base_url}: give the homeserver's address")]
    NoHomeserver {
        /// Where one should be.
        base_url: String,
        /// What is there instead.
        #[source]
        source: RequestError,
    },
}

impl DiscoveryError {
    /// A stable name of this error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoServerName { .. } | Self::Address(_) => "invalid_homeserver",
            Self::Unreachable { source, .. } => source.code(),
            Self::Redirected { .. } => "discovery_redirected",
            Self::NoAnswer { .. } | Self::NoAddress { .. } => "discovery_failed",
            Self::NoHomeserver { .. } => "no_homeserver",
        }
    }
}
