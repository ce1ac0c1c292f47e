//! The access token: held, sent, never shown.

use std::fmt;

use zeroize::Zeroizing;

/// An access token. It is wiped from memory when dropped, and hidden in every debug output.
///
/// ```
/// use mx_transport::AccessToken;
///
/// let token = AccessToken::new("syt_secret")?;
/// assert_eq!(format!("{token:?}"), "AccessToken(<hidden>)");
/// assert_eq!(token.expose(), "syt_secret");
/// assert!(AccessToken::new("two words").is_err());
/// # Ok::<_, mx_transport::InvalidToken>(())
/// ```
#[derive(Clone)]
pub struct AccessToken(Zeroizing<String>);

impl AccessToken {
    /// A token as a homeserver gave it.
    ///
    /// # Errors
    /// [`InvalidToken`] when it is empty or holds anything but visible ASCII, which no header may carry.
    pub fn new(token: impl Into<String>) -> Result<Self, InvalidToken> {
        let token = Zeroizing::new(token.into());
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken);
        }
        Ok(Self(token))
    }

    /// The token itself, for a request header or for keeping it. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(<hidden>)")
    }
}

/// This cannot be an access token.
///
/// ```
/// use mx_transport::AccessToken;
///
/// // As from a file that ends with a line feed: trim it first.
/// let error = AccessToken::new("syt_secret\n").unwrap_err();
/// assert_eq!(error.to_string(), "an access token is one word of visible ASCII characters");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an access token is one word of visible ASCII characters")]
pub struct InvalidToken;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_token() {
        let token = AccessToken::new("syt_secret").unwrap();
        assert_eq!(token.expose(), "syt_secret");
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn what_no_header_may_carry_is_refused() {
        for bad in ["", "a b", "a\r\nHost: evil", "tök", "a\u{7f}"] {
            assert!(AccessToken::new(bad).is_err(), "{bad:?}");
        }
    }
}
