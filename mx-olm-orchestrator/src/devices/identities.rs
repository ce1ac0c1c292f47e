//! Cross-signing identities of other users: how they stand, and what our own user says about a change.

use matrix_sdk_crypto::{OtherUserIdentity, UserIdentity};
use ruma::{OwnedUserId, UserId};
use serde::Serialize;

use crate::{IdentityError, Orchestrator, Result, machine::Ending};

/// How another user's identity stands.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// let friend = ruma::user_id!("@friend:example.org");
/// if let Some(identity) = device.user_identity(friend).await?.filter(|identity| identity.verification_lost) {
///     println!("ask {friend} whether {:?} is the new master key", identity.master_key);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UserIdentityStatus {
    /// Whose.
    pub user_id: OwnedUserId,
    /// The public master key, in unpadded base64.
    pub master_key: Option<String>,
    /// We have verified it.
    pub verified: bool,
    /// We had verified the user, and this is another identity, or one that our own identity does not vouch for any more:
    /// sends to the user are refused until the user is verified again or the change is acknowledged.
    pub verification_lost: bool,
    /// It is not the identity that was there when the user was first seen, and nobody said that this is fine.
    pub changed: bool,
}

impl Orchestrator {
    /// How a user's identity stands. `None`: none is known.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    /// # use mx_olm_orchestrator::{Options, Orchestrator};
    /// # let nowhere = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// # let homeserver = mx_transport::Homeserver::new("http://localhost", nowhere)?;
    /// # let store = PickleStore::open(Arc::new(Memory::new()), KeySource::Bytes(StoreKey::from_bytes([7; 32]))).await?;
    /// # let (us, bot) = (ruma::user_id!("@bot:example.org"), ruma::device_id!("BOT"));
    /// # let device = Orchestrator::open(homeserver, store, us, bot, Options::default()).await?;
    /// // What is known here: nobody is asked.
    /// assert!(device.user_identity(ruma::user_id!("@friend:example.org")).await?.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn user_identity(&self, user: &UserId) -> Result<Option<UserIdentityStatus>> {
        let user = user.to_owned();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let identity = machine.get_identity(&user, None).await?;
                    let status = identity.map(|identity| match identity {
                        UserIdentity::Own(own) => UserIdentityStatus {
                            user_id: user,
                            master_key: own.master_key().get_first_key().map(|key| key.to_base64()),
                            verified: own.is_verified(),
                            verification_lost: own.has_verification_violation(),
                            changed: own.has_verification_violation(),
                        },
                        UserIdentity::Other(other) => UserIdentityStatus {
                            user_id: user,
                            master_key: master_key(&other),
                            verified: other.is_verified(),
                            verification_lost: other.has_verification_violation(),
                            changed: other.identity_needs_user_approval(),
                        },
                    });
                    Ok(Ending::Commit(status))
                })
            })
            .await
    }

    /// Verify a user whose public master key the user has told us: our own identity signs it. As the end of an interactive
    /// verification, for whom the key reached in another way.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::{Error, IdentityError};
    ///
    /// // As its owner read it out, on the telephone.
    /// let told = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    /// match device.verify_user(ruma::user_id!("@friend:example.org"), told).await {
    ///     Err(Error::Identity(IdentityError::OtherKey { found, .. })) => println!("the homeserver shows another one: {found}"),
    ///     verified => verified?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::Unknown`]; [`IdentityError::OtherKey`] when it is not the user's; [`IdentityError::Incomplete`] when
    /// our own identity is not here; of the request; of the store.
    ///
    /// # Cancel safety
    /// Safe: the same again uploads the same signature.
    pub async fn verify_user(&self, user: &UserId, master_key: &str) -> Result<()> {
        self.refresh_keys_of(user).await?;
        let (of, given) = (user.to_owned(), super::trust::as_key(master_key));
        let signatures = self
            .machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let Some(UserIdentity::Other(identity)) = machine.get_identity(&of, None).await? else {
                        return Err(IdentityError::Unknown { user: of }.into());
                    };
                    let found = self::master_key(&identity).unwrap_or_default();
                    if found != given {
                        return Err(IdentityError::OtherKey { user: of, found }.into());
                    }
                    let missing = vec!["user-signing key"];
                    let signed = identity.verify().await;
                    Ok(Ending::Commit(
                        signed.map_err(|_| IdentityError::Incomplete { missing })?,
                    ))
                })
            })
            .await?;
        self.upload_signatures(signatures).await?;
        self.refresh_keys_of(user).await
    }

    /// Go on with a user whose identity was replaced, without verifying it: `master_key` is the one that the user has now,
    /// as [`IdentityChanged`](crate::IdentityChanged) or [`user_identity`](Self::user_identity) shows it. The user counts
    /// as not verified from then on, and another change is told again.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, change: mx_olm_orchestrator::IdentityChanged) -> Result<(), mx_olm_orchestrator::Error> {
    /// // Somebody has asked the user, who did reset the identity. The key is named, so that it is this change and no later one.
    /// if let Some(key) = &change.master_key {
    ///     device.acknowledge_identity_change(&change.user_id, key).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`IdentityError::Unknown`] when no identity of the user is known; [`IdentityError::OtherKey`] when it was replaced
    /// once more; of the store. Nothing is changed then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn acknowledge_identity_change(&self, user: &UserId, master_key: &str) -> Result<()> {
        let (user, given) = (user.to_owned(), super::trust::as_key(master_key));
        let this = self.clone();
        self.machine()
            .unit(move |machine, _| {
                Box::pin(async move {
                    let Some(UserIdentity::Other(identity)) = machine.get_identity(&user, None).await? else {
                        return Err(IdentityError::Unknown { user }.into());
                    };
                    let found = self::master_key(&identity).unwrap_or_default();
                    if found != given {
                        return Err(IdentityError::OtherKey { user, found }.into());
                    }
                    identity.withdraw_verification().await?;
                    this.decided();
                    Ok(Ending::Commit(()))
                })
            })
            .await
    }
}

fn master_key(identity: &OtherUserIdentity) -> Option<String> {
    identity.master_key().get_first_key().map(|key| key.to_base64())
}
