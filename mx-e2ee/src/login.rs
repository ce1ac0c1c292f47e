//! Logging in: by password, by token, by single sign-on, by OAuth 2.0; as a new device, or as the one of the store again.

mod by_oauth;
pub(crate) mod by_service;
mod kinds;
pub(crate) mod sso;

use std::{path::Path, time::Duration};

use mx_crypto_store::PickleStore;
use mx_olm_orchestrator::Orchestrator;
use mx_transport::{AccessToken, Homeserver, RefreshToken, RequestError, Tokens};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::client::{
        account::whoami,
        session::login,
        uiaa::{MatrixUserIdentifier, UserIdentifier},
    },
    thirdparty::Medium,
};
use zeroize::Zeroizing;

pub use self::kinds::LoginKinds;
use self::kinds::kinds;
use crate::{
    Client, ClientBuilder, Error, Result, Session,
    builder::{Prepared, keeper},
    client,
    session::{self, Credentials},
};

/// How a new device is called where nobody says otherwise.
const DEVICE_NAME: &str = "mx-e2ee";

impl ClientBuilder {
    /// Log in by password and publish the device's keys. With a store that was used before, the same device logs in
    /// again, as after a token expired. `user` is a user name, a user id, an email address, or a phone number that begins
    /// with `+`.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, Error};
    ///
    /// match Client::builder().directory("/var/lib/mybot").login("@mybot:example.org", "password").await {
    ///     Ok(bot) => println!("logged in as device {}", bot.device_id()),
    ///     Err(Error::WrongPassword) => println!("that is not the password"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongPassword`], [`Error::AlreadyLoggedIn`], [`Error::DeviceDeleted`]; of the request, of the store.
    pub async fn login(mut self, user: &str, password: &str) -> Result<Client> {
        if self.homeserver.is_none() && user.starts_with('@') {
            self.homeserver = Some(user.to_owned());
        }
        let password = login::v3::Password::new(identifier(user), password.to_owned());
        self.login_by(login::v3::LoginInfo::Password(password)).await
    }

    /// [`open`](Self::open) the login of the directory; where there is none, [`login`](Self::login) by the password that
    /// `password` reads, which ends with its first line: what a bot does at every start, and the password is needed at the
    /// first one alone.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// let bot = mx_e2ee::Client::builder()
    ///     .homeserver("example.org")
    ///     .directory("/var/lib/mybot")
    ///     .open_or_login("mybot", || std::fs::read_to_string("/run/secrets/mybot"))
    ///     .await?;
    /// # drop(bot);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyLoggedIn`] when the login of the directory is another user's; [`Error::Configuration`] when the password
    /// cannot be read; of both calls. A login whose token expired is opened, and refused with the first request:
    /// [`login`](Self::login) again.
    pub async fn open_or_login(self, user: &str, password: impl FnOnce() -> std::io::Result<String>) -> Result<Client> {
        let directory = self.kept_in()?;
        match Session::of(directory)? {
            Some(session) if !is_of(&session, user) => Err(Error::AlreadyLoggedIn {
                directory: directory.to_owned(),
                user: session.user_id.to_string(),
            }),
            Some(_) => self.open().await,
            None => {
                let read = password().map(Zeroizing::new).map_err(|error| Error::Configuration {
                    what: format!("the password of {user} cannot be read: {error}"),
                })?;
                self.login(user, read.lines().next().unwrap_or_default()).await
            }
        }
    }

    /// Log in by a token that single sign-on gave, or another device of the user. It is valid once.
    ///
    /// ```no_run
    /// # async fn example(login_token: String) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Client, Error};
    ///
    /// let builder = Client::builder().homeserver("example.org").directory("/var/lib/mybot");
    /// match builder.login_with_login_token(&login_token).await {
    ///     Ok(bot) => println!("logged in as {}", bot.user_id()),
    ///     Err(Error::WrongLoginToken) => println!("it was used before, or is too old: get another one"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::WrongLoginToken`], [`Error::LoginNotOffered`]; else as [`login`](Self::login).
    pub async fn login_with_login_token(self, token: &str) -> Result<Client> {
        self.login_by(login::v3::LoginInfo::Token(login::v3::Token::new(token.to_owned())))
            .await
    }

    /// Take over a login that was made elsewhere: an access token and the device that it belongs to.
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// let builder = mx_e2ee::Client::builder().homeserver("https://matrix.example.org").directory("/var/lib/mybot");
    /// let bot = builder.login_with_token("syt_…").await?;
    /// println!("this is device {}", bot.device_id());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::TokenWithoutDevice`], [`Error::AlreadyLoggedIn`]; of the request, of the store.
    pub async fn login_with_token(self, access_token: &str) -> Result<Client> {
        let prepared = self.prepare_login().await?;
        let token = token(access_token)?;
        prepared.homeserver.set_access_token(token.clone());
        let who = prepared.homeserver.send(whoami::v3::Request::new()).await?;
        let device = who.device_id.ok_or(Error::TokenWithoutDevice)?;
        self.finish(prepared, who.user_id, device, Credentials::native(token.into()))
            .await
    }

    async fn login_by(self, info: login::v3::LoginInfo) -> Result<Client> {
        let prepared = self.prepare_login().await?;
        let homeserver = prepared.homeserver.clone();
        let by_token = matches!(info, login::v3::LoginInfo::Token(_));
        let mut request = login::v3::Request::new(info);
        request.initial_device_display_name = Some(self.name_of_device());
        request.refresh_token = true;
        request.device_id = known_device(&prepared.store).await?;
        let answer = match homeserver.send(request).await {
            Ok(answer) => answer,
            Err(error) => return Err(why_no_login(&homeserver, error, by_token).await),
        };
        self.logged_in(prepared, answer).await
    }

    /// The homeserver has made a login.
    async fn logged_in(self, prepared: Prepared, answer: login::v3::Response) -> Result<Client> {
        let homeserver = prepared.homeserver.clone();
        let refresh = answer.refresh_token.map(RefreshToken::new);
        let tokens = Tokens::lasting(token(&answer.access_token)?, refresh, answer.expires_in);
        let credentials = Credentials::native(tokens);
        let finished = self
            .finish(prepared, answer.user_id, answer.device_id, credentials)
            .await;
        if is_of_another_device(&finished) {
            // The login that was just made is of no use to anybody.
            end_unused(&homeserver).await;
        }
        finished
    }

    fn name_of_device(&self) -> String {
        self.device_name.clone().unwrap_or_else(|| DEVICE_NAME.to_owned())
    }

    /// What a login needs, before a password is sent.
    async fn prepare_login(&self) -> Result<Prepared> {
        if let Some(directory) = &self.directory {
            self.refuse_second_login(directory).await?;
        }
        self.prepare(true).await
    }

    /// A login that works is not thrown away by accident; one whose token expired may be made again. It is asked for at its
    /// own homeserver: another one is not shown the token.
    async fn refuse_second_login(&self, directory: &Path) -> Result<()> {
        let held = match self.held(directory).await {
            Err(Error::NotLoggedIn { .. }) => return Ok(()),
            held => held?,
        };
        let Some(homeserver) = held.homeserver else {
            // It was ended, and not all of its files are out of the way.
            let _locked = session::lock(directory).await?;
            return session::forget(directory, &held.session);
        };
        match homeserver.send(whoami::v3::Request::new()).await {
            Err(RequestError::LoggedOut { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(Error::AlreadyLoggedIn {
                directory: directory.to_owned(),
                user: held.session.user_id.to_string(),
            }),
        }
    }

    /// Keep a login that was made, and publish the device's keys.
    async fn finish(
        self,
        prepared: Prepared,
        user_id: OwnedUserId,
        device_id: OwnedDeviceId,
        credentials: Credentials,
    ) -> Result<Client> {
        let Prepared { homeserver, store, key } = prepared;
        let session = Session {
            homeserver: homeserver.base_url().to_owned(),
            user_id,
            device_id,
        };
        let safe = match &self.directory {
            Some(directory) => Some((directory.clone(), session::Safe::create(key).await?)),
            None => None,
        };
        let keeper = safe
            .clone()
            .map(|(directory, safe)| keeper(&directory, &session, safe, &credentials));
        credentials.clone().give_to(&homeserver, keeper);
        let device = Orchestrator::open(homeserver, store, &session.user_id, &session.device_id, self.options).await?;
        if let Some((directory, safe)) = safe {
            let directory = session::create_directory(&directory)?;
            let _locked = session::lock(&directory).await?;
            safe.save(&directory, &session, &credentials)?;
        }
        // A store whose keys never were on the homeserver is that of a login that was interrupted.
        if device.were_keys_published().await? && !device.key_status().await?.published {
            return Err(Error::DeviceDeleted {
                device: session.device_id,
            });
        }
        device.publish_keys().await?;
        // The homeserver's answer makes the engine add a fallback key, and rooms are known from the start.
        if let Err(error) = device.sync(Duration::ZERO).await {
            tracing::warn!(
                code = error.code(),
                "logged in, and the first sync failed: the next one makes up for it"
            );
        }
        Ok(Client::new(device, session, self.directory, self.invites))
    }
}

/// The device of a store that was used before: it logs in again.
async fn known_device(store: &PickleStore) -> Result<Option<OwnedDeviceId>> {
    Ok(store.device().await?.map(|(_, device)| device))
}

fn is_of_another_device(finished: &Result<Client>) -> bool {
    matches!(
        finished,
        Err(Error::Orchestrator(
            mx_olm_orchestrator::Error::StoreOfAnotherDevice { .. }
        ))
    )
}

async fn why_no_login(homeserver: &Homeserver, error: RequestError, by_token: bool) -> Error {
    match &error {
        RequestError::Api { status, errcode, .. }
            if status.as_u16() == 403 && errcode.as_deref() == Some("M_FORBIDDEN") =>
        {
            if by_token {
                Error::WrongLoginToken
            } else {
                Error::WrongPassword
            }
        }
        RequestError::Api { status, .. } if matches!(status.as_u16(), 400 | 403 | 404) => {
            match kinds(homeserver).await {
                Ok(kinds) if by_token && !kinds.token => Error::LoginNotOffered {
                    wanted: "token",
                    offered: kinds.names,
                },
                Ok(kinds) if !by_token && !kinds.password && kinds.names.is_empty() => Error::NoPasswordLogin,
                Ok(kinds) if !by_token && !kinds.password => Error::LoginNotOffered {
                    wanted: "password",
                    offered: kinds.names,
                },
                _ => error.into(),
            }
        }
        _ => error.into(),
    }
}

pub(crate) fn token(given: &str) -> Result<AccessToken> {
    AccessToken::new(given).map_err(|error| Error::Configuration {
        what: error.to_string(),
    })
}

/// Whether a login is that of a user, as people name them. Whose an address or a number is, the homeserver alone knows.
fn is_of(session: &Session, user: &str) -> bool {
    if user.starts_with('@') {
        session.user_id.as_str().eq_ignore_ascii_case(user)
    } else {
        user.contains('@') || user.starts_with('+') || session.user_id.localpart().eq_ignore_ascii_case(user)
    }
}

/// Whom somebody means: a phone number, an email address, or a user by name or id.
fn identifier(user: &str) -> UserIdentifier {
    let digits: String = user.chars().filter(char::is_ascii_digit).collect();
    let number = user.strip_prefix('+').filter(|rest| {
        digits.len() >= 5
            && rest
                .chars()
                .all(|char| char.is_ascii_digit() || matches!(char, ' ' | '-' | '(' | ')' | '.'))
    });
    let is_address = !user.starts_with('@')
        && user
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    if number.is_some() {
        UserIdentifier::third_party_id(Medium::Msisdn, digits)
    } else if is_address {
        UserIdentifier::third_party_id(Medium::Email, user.to_owned())
    } else {
        UserIdentifier::Matrix(MatrixUserIdentifier::new(user.to_owned()))
    }
}

/// End a login that nobody will use. That it cannot be ended is not what the caller has to know first.
async fn end_unused(homeserver: &Homeserver) {
    if let Err(error) = client::end_login(homeserver).await {
        tracing::warn!(
            code = error.code(),
            "a login that nobody uses could not be ended: it is among the devices"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_in_several_ways() {
        for (given, expected) in [
            ("bot", r#"{"type":"m.id.user","user":"bot"}"#),
            ("@bot:hs.test", r#"{"type":"m.id.user","user":"@bot:hs.test"}"#),
            (
                "bot@hs.test",
                r#"{"type":"m.id.thirdparty","medium":"email","address":"bot@hs.test"}"#,
            ),
            (
                "+49 (30) 123-456",
                r#"{"type":"m.id.thirdparty","medium":"msisdn","address":"4930123456"}"#,
            ),
            ("+bot", r#"{"type":"m.id.user","user":"+bot"}"#),
            ("+1", r#"{"type":"m.id.user","user":"+1"}"#),
        ] {
            let shown = serde_json::to_value(identifier(given)).unwrap();
            assert_eq!(
                shown,
                serde_json::from_str::<serde_json::Value>(expected).unwrap(),
                "{given}"
            );
        }
    }
}
