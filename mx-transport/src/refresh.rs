//! Tokens that expire and are renewed: what they are, where they are kept, and which ones are in use.
//!
//! From the client-server API, "Refreshing access tokens". How a [`Homeserver`](crate::Homeserver) uses them is in
//! `homeserver/renew.rs`.
//!
//! # Why a keeper
//! As soon as a new token is used the old ones are worth nothing. New tokens must be durable before that, in a place that
//! this crate knows nothing of; and where several processes share a login, only one of them may renew it at a time.

use std::{
    error::Error as StdError,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::{sync::Mutex, time::Instant};
use zeroize::Zeroizing;

use crate::{AccessToken, OAuthClient};

/// An access token is renewed at most this long before it expires.
const MOST_AHEAD: Duration = Duration::from_secs(30);
/// After an early renewal failed, the next one is tried this much later; what is refused is renewed at once.
const PAUSE: Duration = Duration::from_secs(30);

/// A refresh token: what a new access token is given for. It is wiped from memory when dropped, and hidden in every debug
/// output.
///
/// ```
/// use mx_transport::RefreshToken;
///
/// let token = RefreshToken::new("syr_secret");
/// assert_eq!(format!("{token:?}"), "RefreshToken(<hidden>)");
/// assert_eq!(token.expose(), "syr_secret");
/// ```
#[derive(Clone)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// A token as a homeserver gave it. It is sent in a body only, and may be any text.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// The token itself, for a request's body or for keeping it. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(<hidden>)")
    }
}

/// An access token, with what renews it.
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver, keeper: std::sync::Arc<dyn mx_transport::TokenKeeper>)
/// # -> Result<(), mx_transport::InvalidToken> {
/// use std::time::Duration;
/// use mx_transport::{AccessToken, RefreshToken, Tokens};
///
/// let (access, refresh) = (AccessToken::new("syt_…")?, RefreshToken::new("syr_…"));
/// // They are renewed before five minutes are over, and the keeper has the new ones before they are used.
/// homeserver.set_tokens(Tokens::lasting(access, Some(refresh), Some(Duration::from_secs(300))), Some(keeper));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Sent with requests.
    pub access: AccessToken,
    /// What a new access token is given for. `None`: it cannot be renewed.
    pub refresh: Option<RefreshToken>,
    /// When the access token expires, by this machine's clock. `None`: the homeserver did not say.
    pub expires_at: Option<SystemTime>,
}

impl Tokens {
    /// Tokens as a homeserver has just given them, of which the access token lasts for `lifetime`.
    #[must_use]
    pub fn lasting(access: AccessToken, refresh: Option<RefreshToken>, lifetime: Option<Duration>) -> Self {
        Self {
            access,
            refresh,
            expires_at: lifetime.and_then(|lifetime| SystemTime::now().checked_add(lifetime)),
        }
    }

    /// How long the access token lasts yet, by this machine's clock.
    fn left(&self) -> Option<Duration> {
        let expires_at = self.expires_at?;
        Some(expires_at.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

impl From<AccessToken> for Tokens {
    fn from(access: AccessToken) -> Self {
        Self {
            access,
            refresh: None,
            expires_at: None,
        }
    }
}

/// Why tokens cannot be kept. It must hold no token.
///
/// ```
/// use mx_transport::KeepError;
///
/// // Any error will do that holds no token.
/// let error: KeepError = Box::new(std::io::Error::other("the disk is full"));
/// assert_eq!(error.to_string(), "the disk is full");
/// ```
pub type KeepError = Box<dyn StdError + Send + Sync>;

/// Where the tokens of a login are kept.
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use mx_transport::{KeepError, KeeperTurn, TokenKeeper, Tokens};
/// use tokio::sync::{Mutex, OwnedMutexGuard};
///
/// /// Of one process, and in memory: a real one has a lock file and a file that it replaces as a whole.
/// #[derive(Debug)]
/// struct Kept(Arc<Mutex<Option<Tokens>>>);
/// struct Turn(OwnedMutexGuard<Option<Tokens>>);
///
/// #[async_trait]
/// impl TokenKeeper for Kept {
///     async fn turn(&self) -> Result<Box<dyn KeeperTurn>, KeepError> {
///         Ok(Box::new(Turn(Arc::clone(&self.0).lock_owned().await)))
///     }
/// }
///
/// #[async_trait]
/// impl KeeperTurn for Turn {
///     async fn kept(&self) -> Result<Option<Tokens>, KeepError> {
///         Ok(self.0.clone())
///     }
///
///     async fn keep(&mut self, tokens: &Tokens) -> Result<(), KeepError> {
///         *self.0 = Some(tokens.clone());
///         Ok(())
///     }
/// }
/// ```
///
/// # Contract
/// - From [`turn`](Self::turn) until what it returned is dropped nobody else renews this login, in any process.
/// - When [`keep`](KeeperTurn::keep) returns `Ok`, the tokens are durable, and the ones before them are gone.
/// - Neither errors, logs nor debug output hold a token.
#[async_trait]
pub trait TokenKeeper: fmt::Debug + Send + Sync {
    /// Wait until nobody else renews this login.
    ///
    /// # Errors
    /// When the place cannot be reached, or others hold it for too long.
    ///
    /// # Cancel safety
    /// Safe: nobody waits for a turn that was not taken.
    async fn turn(&self) -> Result<Box<dyn KeeperTurn>, KeepError>;
}

/// The turn to renew a login.
///
/// ```
/// # use mx_transport::{KeepError, TokenKeeper, Tokens};
/// /// What a renewal does with it.
/// async fn renew(keeper: &dyn TokenKeeper, ours: &Tokens, renewed: &Tokens) -> Result<Option<Tokens>, KeepError> {
///     let mut turn = keeper.turn().await?;
///     match turn.kept().await? {
///         // Another process was faster: its tokens are used.
///         Some(kept) if kept.access.expose() != ours.access.expose() => Ok(Some(kept)),
///         Some(_) => turn.keep(renewed).await.map(|()| Some(renewed.clone())),
///         None => Ok(None),
///     }
/// }
/// # let _ = renew;
/// ```
#[async_trait]
pub trait KeeperTurn: Send + Sync {
    /// What is kept now, which another process may have renewed. `None`: the login was ended, and is not to be renewed.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn kept(&self) -> Result<Option<Tokens>, KeepError>;

    /// Keep these instead.
    ///
    /// # Errors
    /// When they are not durable: then the ones before them stay in use.
    ///
    /// # Cancel safety
    /// Dropped, it has kept them or not, and does nothing afterwards.
    async fn keep(&mut self, tokens: &Tokens) -> Result<(), KeepError>;
}

/// The tokens in use.
#[derive(Clone, Debug)]
struct Held {
    tokens: Tokens,
    /// Who gave them, and renews them: the homeserver itself where there is nobody.
    oauth: Option<OAuthClient>,
    /// When it is time for new ones. Of a clock that never jumps, and that may stand still while the machine sleeps.
    due: Option<Instant>,
    keeper: Option<Arc<dyn TokenKeeper>>,
}

/// What one homeserver holds of a login, shared by its clones.
#[derive(Debug, Default)]
pub(crate) struct Login {
    held: RwLock<Option<Held>>,
    /// Held while the login is renewed.
    pub(crate) renewing: Mutex<()>,
}

impl Login {
    pub(crate) fn set(&self, tokens: Option<Tokens>, oauth: Option<OAuthClient>, keeper: Option<Arc<dyn TokenKeeper>>) {
        // A panic while the lock was held cannot have left half a token.
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = tokens.map(|tokens| Held {
            due: due(&tokens),
            tokens,
            oauth,
            keeper,
        });
    }

    /// Change what is held, if its access token is still this one.
    fn change(&self, access: &AccessToken, change: impl FnOnce(&mut Held)) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_mut().filter(|held| held.tokens.access.is(access)) {
            change(held);
        }
    }

    /// Use these instead of `old`, unless somebody else replaced it.
    pub(crate) fn replace(&self, old: &AccessToken, tokens: Tokens) {
        self.change(old, |held| {
            held.due = due(&tokens);
            held.tokens = tokens;
        });
    }

    /// The refresh token beside this access token was refused for good.
    pub(crate) fn forget_refresh_token(&self, access: &AccessToken) {
        self.change(access, |held| {
            held.tokens.refresh = None;
            held.due = None;
        });
    }

    /// Renewing this access token early did not work.
    pub(crate) fn postpone(&self, access: &AccessToken) {
        self.change(access, |held| held.due = Instant::now().checked_add(PAUSE));
    }

    pub(crate) fn access(&self) -> Option<AccessToken> {
        self.held().map(|(tokens, _)| tokens.access)
    }

    /// What is in use, and where it is kept.
    pub(crate) fn held(&self) -> Option<(Tokens, Option<Arc<dyn TokenKeeper>>)> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().map(|held| (held.tokens.clone(), held.keeper.clone()))
    }

    /// The authorization server's client that the tokens are of.
    pub(crate) fn oauth(&self) -> Option<OAuthClient> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()?.oauth.clone()
    }

    /// The access token, if it is time to renew it.
    pub(crate) fn due(&self) -> Option<AccessToken> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let held = held.as_ref()?;
        let due = held.tokens.refresh.is_some() && held.due? <= Instant::now();
        due.then(|| held.tokens.access.clone())
    }
}

/// When it is time to renew: before the expiry by a fifth of what is left, or by half a minute.
fn due(tokens: &Tokens) -> Option<Instant> {
    let left = tokens.left()?;
    Instant::now().checked_add(left.saturating_sub(MOST_AHEAD.min(left / 5)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> AccessToken {
        AccessToken::new(text).unwrap()
    }

    fn login(lifetime: Option<Duration>) -> Login {
        let login = Login::default();
        let tokens = Tokens::lasting(token("access-1"), Some(RefreshToken::new("refresh-1")), lifetime);
        login.set(Some(tokens), None, None);
        login
    }

    #[test]
    fn debug_hides_both_tokens() {
        let login = login(None);
        let shown = format!("{login:?} {:?}", login.held());
        assert!(
            !shown.contains("access-1") && !shown.contains("refresh-1") && shown.contains("<hidden>"),
            "{shown}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_due_a_little_before_it_expires() {
        let login = login(Some(Duration::from_secs(3600)));
        tokio::time::advance(Duration::from_secs(3560)).await;
        assert!(login.due().is_none());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(login.due().is_some());
        login.postpone(&token("access-1"));
        assert!(login.due().is_none(), "not with every request");
        tokio::time::advance(PAUSE).await;
        assert!(login.due().is_some());
        login.forget_refresh_token(&token("access-1"));
        assert!(login.due().is_none(), "nothing renews it");
    }

    #[tokio::test(start_paused = true)]
    async fn odd_times_are_no_panic() {
        assert!(login(Some(Duration::ZERO)).due().is_some());
        assert!(login(Some(Duration::MAX)).due().is_none());
        assert!(login(None).due().is_none());
        let login = login(None);
        for (expires_at, is_due) in [
            (SystemTime::UNIX_EPOCH, true),
            (SystemTime::now() + Duration::from_secs(u64::from(u32::MAX)), false),
        ] {
            let mut tokens = Tokens::lasting(token("access-2"), Some(RefreshToken::new("refresh-2")), None);
            tokens.expires_at = Some(expires_at);
            login.set(Some(tokens), None, None);
            assert_eq!(login.due().is_some(), is_due, "{expires_at:?}");
        }
    }

    #[test]
    fn what_somebody_else_replaced_stays() {
        let login = login(None);
        login.set(Some(token("access-2").into()), None, None);
        login.replace(&token("access-1"), token("access-3").into());
        login.forget_refresh_token(&token("access-1"));
        assert!(login.access().unwrap().is(&token("access-2")));
        login.set(None, None, None);
        login.replace(&token("access-2"), token("access-3").into());
        assert!(login.access().is_none());
    }
}
