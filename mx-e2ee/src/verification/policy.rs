//! Who may verify us when nobody is there, and what is taken for a confirmation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use futures_util::future::BoxFuture;
use matrix_sdk_crypto::vodozemac::Ed25519PublicKey;
use mx_olm_orchestrator::VerificationShown;
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use super::Verification;
use crate::{Error, Result};

/// What somebody who looked says.
///
/// ```
/// use mx_e2ee::Decision;
///
/// // What a person answers, who was asked whether both sides show the same.
/// fn decide(answer: &str) -> Decision {
///     match answer {
///         "yes" => Decision::Match,
///         "no" => Decision::Mismatch,
///         _ => Decision::Nothing,
///     }
/// }
/// assert_eq!(decide("what?"), Decision::Nothing, "another one, or another program, may still decide");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Both sides show the same.
    Match,
    /// They do not: it is cancelled.
    Mismatch,
    /// It is not decided here. It ends by itself when nobody decides.
    Nothing,
}

type Decide = Arc<dyn Fn(Verification, VerificationShown) -> BoxFuture<'static, Decision> + Send + Sync>;

/// Who may verify us when nobody is there, and what is taken for a confirmation.
///
/// # Why
/// To be on a list is enough to be answered, and never enough to be verified: a homeserver can put a device of its own in
/// anybody's name. What confirms is a truth that did not come through the homeserver: keys that their owners gave
/// ([`expect`](Self::expect)), or somebody who looks at both sides ([`decide`](Self::decide)). Without one of the two,
/// a policy confirms nothing, and a [`Compare`](mx_olm_orchestrator::VerificationState::Compare) waits for another program.
///
/// ```
/// use mx_e2ee::{VerificationPolicy, ruma::user_id};
///
/// // A master key that its owner told us by another way than the homeserver.
/// let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
/// let policy = VerificationPolicy::new().expect(user_id!("@friend:example.org"), [key])?;
/// # drop(policy);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct VerificationPolicy {
    users: BTreeSet<OwnedUserId>,
    own_devices: bool,
    decline_others: bool,
    start_nothing: bool,
    expected: BTreeMap<OwnedUserId, BTreeSet<String>>,
    decide: Option<Decide>,
}

impl fmt::Debug for VerificationPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationPolicy")
            .field("users", &self.users)
            .field("own_devices", &self.own_devices)
            .field("decline_others", &self.decline_others)
            .field("expected", &self.expected)
            .field("decide", &self.decide.is_some())
            .finish()
    }
}

/// As it is written in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    accept: BTreeSet<OwnedUserId>,
    #[serde(default)]
    accept_own_devices: bool,
    #[serde(default)]
    decline_others: bool,
    #[serde(default)]
    expect: BTreeMap<OwnedUserId, Vec<String>>,
}

impl VerificationPolicy {
    /// A policy that answers nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Read a policy from JSON: `{"accept": ["@user:server", …], "accept_own_devices": false, "decline_others": false,
    /// "expect": {"@user:server": ["Ed25519 key in base64", …]}}`, all of it optional, nothing else allowed.
    ///
    /// ```
    /// use mx_e2ee::VerificationPolicy;
    ///
    /// let json = r#"{"accept": ["@boss:example.org"], "decline_others": true}"#;
    /// let policy = VerificationPolicy::from_json(json)?;
    /// # drop(policy);
    /// # assert!(VerificationPolicy::from_json(r#"{"acept": []}"#).is_err());
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Configuration`] with what is wrong.
    pub fn from_json(json: &str) -> Result<Self> {
        let written: Written = serde_json::from_str(json).map_err(|error| Error::Configuration {
            what: format!("the verification policy cannot be read: {error}"),
        })?;
        let mut policy = Self::new().accept_users(written.accept);
        policy.own_devices = written.accept_own_devices;
        policy.decline_others = written.decline_others;
        for (user, keys) in written.expect {
            policy = policy.expect(&user, keys)?;
        }
        Ok(policy)
    }

    /// Answer what these users ask for.
    ///
    /// ```
    /// use mx_e2ee::{VerificationPolicy, ruma::{owned_user_id, user_id}};
    ///
    /// let policy = VerificationPolicy::new().accept_users([owned_user_id!("@boss:example.org")]);
    /// assert!(!policy.decides(user_id!("@boss:example.org")), "answered, and confirmed by nobody yet");
    /// ```
    #[must_use]
    pub fn accept_users(mut self, users: impl IntoIterator<Item = OwnedUserId>) -> Self {
        self.users.extend(users);
        self
    }

    /// Answer other devices of our own user. One that is verified is given our secrets.
    ///
    /// ```
    /// use mx_e2ee::{VerificationPolicy, ruma::user_id};
    ///
    /// // The phone of whoever operates the bot, which is logged in to the same account. The key is the account's master key.
    /// let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    /// let policy = VerificationPolicy::new().accept_own_devices().expect(user_id!("@bot:example.org"), [key])?;
    /// assert!(policy.decides(user_id!("@bot:example.org")), "nobody has to look");
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    #[must_use]
    pub const fn accept_own_devices(mut self) -> Self {
        self.own_devices = true;
        self
    }

    /// Decline what all others ask for, instead of leaving it to another device of ours.
    ///
    /// ```
    /// use mx_e2ee::VerificationPolicy;
    ///
    /// // The bot is the only device of its account: whoever is not on the list need not wait.
    /// let policy = VerificationPolicy::new().accept_own_devices().decline_others();
    /// # drop(policy);
    /// ```
    #[must_use]
    pub const fn decline_others(mut self) -> Self {
        self.decline_others = true;
        self
    }

    /// Do not start to compare emoji where we asked: a code is shown or scanned instead.
    ///
    /// ```
    /// use mx_e2ee::{VerificationPolicy, ruma::owned_user_id};
    ///
    /// // We asked, and show a code; whoever has the other device scans it.
    /// let policy = VerificationPolicy::new().accept_users([owned_user_id!("@boss:example.org")]).decline_others().start_nothing();
    /// # drop(policy);
    /// ```
    #[must_use]
    pub const fn start_nothing(mut self) -> Self {
        self.start_nothing = true;
        self
    }

    /// Answer this user, and confirm when all that would be verified is among these Ed25519 keys: the user's master key, or
    /// the device's where there is no cross-signing identity. Spaces and padding in them do not matter. When it is not, the
    /// verification is cancelled.
    ///
    /// # Errors
    /// [`Error::Configuration`] for what is no key.
    pub fn expect<K: Into<String>>(mut self, user: &UserId, keys: impl IntoIterator<Item = K>) -> Result<Self> {
        let expected = self.expected.entry(user.to_owned()).or_default();
        for key in keys {
            let key: String = key.into();
            let key: String = key
                .chars()
                .filter(|char| !char.is_whitespace() && *char != '=')
                .collect();
            if Ed25519PublicKey::from_base64(&key).is_err() {
                return Err(Error::Configuration {
                    what: format!("{key:?} is not an Ed25519 key in base64, as is expected of {user}"),
                });
            }
            expected.insert(key);
        }
        Ok(self)
    }

    /// Ask this when something is to be compared and no keys are expected of the user. It gets what our side shows, and
    /// answers what somebody says who sees the other side.
    ///
    /// ```
    /// use mx_e2ee::{Decision, VerificationPolicy, VerificationState, ruma::owned_user_id};
    ///
    /// let policy = VerificationPolicy::new().accept_users([owned_user_id!("@boss:example.org")]).decide(|_, shown| {
    ///     Box::pin(async move {
    ///         // Ask whoever sees the other side, as in a chat of the operators; here nobody is.
    ///         if let VerificationState::Compare { decimals, .. } = shown.state {
    ///             println!("{} compares {decimals:?}", shown.id);
    ///         }
    ///         Decision::Nothing
    ///     })
    /// });
    /// # drop(policy);
    /// ```
    #[must_use]
    pub fn decide<F>(mut self, decide: F) -> Self
    where
        F: Fn(Verification, VerificationShown) -> BoxFuture<'static, Decision> + Send + Sync + 'static,
    {
        self.decide = Some(Arc::new(decide));
        self
    }

    /// Whether to answer this user.
    pub(super) fn answers(&self, user: &UserId, own: &UserId) -> bool {
        if user == own {
            self.own_devices || self.expected.contains_key(user)
        } else {
            self.users.contains(user) || self.expected.contains_key(user)
        }
    }

    pub(super) const fn starts(&self) -> bool {
        !self.start_nothing
    }

    /// Whether it decides what this user's keys are, so that nobody is to be asked.
    ///
    /// ```
    /// use mx_e2ee::{VerificationPolicy, ruma::{owned_user_id, user_id}};
    ///
    /// let (boss, friend) = (owned_user_id!("@boss:example.org"), user_id!("@friend:example.org"));
    /// let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    /// let policy = VerificationPolicy::new().accept_users([boss.clone()]).expect(friend, [key])?;
    /// assert!(policy.decides(friend));
    /// assert!(!policy.decides(&boss), "the boss is answered, and somebody has to look");
    /// # Ok::<_, mx_e2ee::Error>(())
    /// ```
    #[must_use]
    pub fn decides(&self, user: &UserId) -> bool {
        self.expected.contains_key(user) || self.decide.is_some()
    }

    pub(super) const fn declines(&self) -> bool {
        self.decline_others
    }

    pub(super) fn expected_of(&self, user: &UserId) -> Option<&BTreeSet<String>> {
        self.expected.get(user)
    }

    pub(super) fn decision(
        &self,
        verification: Verification,
        shown: VerificationShown,
    ) -> Option<BoxFuture<'static, Decision>> {
        self.decide.as_ref().map(|decide| decide(verification, shown))
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn nobody_is_answered_by_default() {
        let (alice, bot) = (user_id!("@alice:x"), user_id!("@bot:x"));
        let policy = VerificationPolicy::new();
        assert!(!policy.answers(alice, bot) && !policy.answers(bot, bot));
        let policy = policy.accept_users([alice.to_owned(), bot.to_owned()]);
        assert!(policy.answers(alice, bot));
        assert!(
            !policy.answers(bot, bot),
            "our own devices are given secrets: they are named as such"
        );
        assert!(policy.accept_own_devices().answers(bot, bot));
    }

    #[test]
    fn a_file_says_all_of_it_and_nothing_else() {
        let alice = user_id!("@alice:x");
        let json = r#"{"expect": {"@alice:x": ["11qY AYKx CrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]}}"#;
        let policy = VerificationPolicy::from_json(json).unwrap();
        assert!(policy.answers(alice, user_id!("@bot:x")));
        assert_eq!(policy.expected_of(alice), Some(&BTreeSet::from([KEY.to_owned()])));
        for wrong in [
            r#"{"acept": []}"#,
            r#"{"accept": ["alice"]}"#,
            r#"{"expect": {"@alice:x": ["short"]}}"#,
            r#"{"expect": {"@alice:x": [""]}}"#,
            "",
        ] {
            let error = VerificationPolicy::from_json(wrong).unwrap_err();
            assert_eq!(error.code(), "configuration", "{wrong}");
        }
    }
}
