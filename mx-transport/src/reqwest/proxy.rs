//! Through which proxy requests go.

use std::fmt;

use url::Url;
use zeroize::Zeroizing;

use crate::{TransportError, TransportErrorKind as Kind};

/// Through which proxy requests go. A proxy's password is never shown.
#[derive(Clone, Default)]
pub(super) enum Way {
    /// None, whatever the environment says.
    #[default]
    Direct,
    /// Those of the environment.
    Environment,
    /// This one, for every request.
    Through(Zeroizing<String>),
}

/// Where an environment names its proxies.
const VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "Direct",
            Self::Environment => "Environment",
            Self::Through(_) => "Through(…)",
        })
    }
}

impl Way {
    /// Whether a proxy may be in between.
    pub(super) const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct)
    }

    /// Whether there is a proxy to which one speaks in TLS.
    pub(super) fn is_secure(&self) -> bool {
        let is_secure = |address: &str| Url::parse(address).is_ok_and(|url| url.scheme() == "https");
        match self {
            Self::Direct => false,
            Self::Through(address) => is_secure(address),
            Self::Environment => VARIABLES
                .iter()
                .any(|name| std::env::var(name).is_ok_and(|address| is_secure(&address))),
        }
    }

    /// Through the proxy at this address.
    pub(super) fn through(address: &str) -> Result<Self, TransportError> {
        let is_one = Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_one {
            return Err(TransportError::with_source(
                Kind::Build,
                "a proxy's address is like http://user:password@proxy.example.org:3128",
            ));
        }
        Ok(Self::Through(Zeroizing::new(address.to_owned())))
    }

    pub(super) fn apply(&self, client: ::reqwest::ClientBuilder) -> Result<::reqwest::ClientBuilder, TransportError> {
        match self {
            Self::Direct => Ok(client.no_proxy()),
            Self::Environment => Ok(client),
            Self::Through(address) => {
                let proxy = ::reqwest::Proxy::all(address.as_str())
                    .map_err(|error| TransportError::with_source(Kind::Build, error.without_url()))?;
                Ok(client.proxy(proxy))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_and_its_password_is_not_shown() {
        let proxy = Way::through("http://u:secret@proxy.test:3128").unwrap();
        assert_eq!(format!("{proxy:?}"), "Through(…)");
        for bad in ["proxy.test", "", "socks5://proxy.test", "ftp://u:secret@proxy.test"] {
            let error = Way::through(bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Build, "{bad}");
            assert!(!format!("{error:?} {error}").contains("secret"));
        }
    }
}
