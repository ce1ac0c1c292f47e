//! Verification as an app holds it: one handle for each, whatever happens inside.

mod answering;
mod asking;
#[cfg(feature = "pictures")]
mod picture;
mod policy;
mod way;

use std::collections::BTreeSet;

use futures_util::{Stream, StreamExt, stream};
use mx_olm_orchestrator::{VerificationId, VerificationQr, VerificationShown, VerificationState};

#[cfg(feature = "pictures")]
pub use self::picture::{qr_from_picture, qr_to_png, qr_to_text};
pub use self::policy::{Decision, VerificationPolicy};
use crate::{Client, Result};

/// A verification with somebody. Cheap to clone.
///
/// It moves on while the client receives: keep a [`receive`](Client::receive) loop or an [`events`](Client::events) stream
/// running. Whoever asked, either side may [`start`](Self::start) to compare once it is
/// [`Ready`](VerificationState::Ready). The engine ends a comparison where nothing comes from the other side for a minute,
/// and all of it after five.
///
/// Where both sides ask at once, one of the two requests goes on: that of the smaller user id, and of the smaller device id
/// between devices of one user. The other one ends with the code `m.accepted`, and what goes on waits to be accepted there,
/// as any other request.
///
/// ```no_run
/// # use mx_e2ee::Client;
/// # async fn example(client: Client, ask: impl AsyncFn(&[mx_e2ee::SasEmoji]) -> bool) -> mx_e2ee::Result<()> {
/// use mx_e2ee::{VerificationState, ruma::user_id};
///
/// let verification = client.verify_user(user_id!("@friend:example.org")).await?;
/// verification.wait_until(|state| matches!(state, VerificationState::Ready { .. })).await;
/// verification.start().await?;
/// let compare = verification.wait_until(|state| matches!(state, VerificationState::Compare { .. })).await;
/// if let Some(VerificationState::Compare { emoji: Some(emoji), .. }) = compare {
///     // Somebody looks at both screens.
///     if ask(&emoji).await { verification.confirm().await? } else { verification.mismatch().await? }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Verification {
    client: Client,
    id: VerificationId,
}

impl Verification {
    /// Which one.
    #[must_use]
    pub const fn id(&self) -> &VerificationId {
        &self.id
    }

    /// With whom, where, since when, and how it stands. `None`: it is not under way, or has long ended.
    ///
    /// ```no_run
    /// # async fn example(verification: mx_e2ee::Verification) {
    /// if let Some(shown) = verification.shown() {
    ///     let device = shown.device_id.map_or("a device that is not known yet".to_owned(), |device| device.to_string());
    ///     println!("with {} on {device}, asked by us: {}", verification.id().user_id, shown.by_us);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn shown(&self) -> Option<VerificationShown> {
        self.client
            .orchestrator()
            .verifications()
            .borrow()
            .get(&self.id)
            .cloned()
    }

    /// How it stands. `None`: it is not under way, or has long ended.
    #[must_use]
    pub fn state(&self) -> Option<VerificationState> {
        self.shown().map(|shown| shown.state)
    }

    /// How it stands now and after every change, until it has ended.
    ///
    /// ```no_run
    /// # async fn example(verification: mx_e2ee::Verification) {
    /// use futures_util::StreamExt;
    ///
    /// let mut changes = std::pin::pin!(verification.changes());
    /// while let Some(state) = changes.next().await {
    ///     println!("{}: {state:?}", verification.id());
    /// }
    /// # }
    /// ```
    pub fn changes(&self) -> impl Stream<Item = VerificationState> + Send + use<> {
        let (receiver, id) = (self.client.orchestrator().verifications(), self.id.clone());
        let start = (receiver, id, None::<VerificationState>);
        stream::unfold(start, |(mut receiver, id, last)| async move {
            if last.as_ref().is_some_and(VerificationState::is_ended) {
                return None;
            }
            loop {
                let now = receiver.borrow_and_update().get(&id).map(|shown| shown.state.clone());
                match now {
                    Some(now) if Some(&now) != last.as_ref() => return Some((now.clone(), (receiver, id, Some(now)))),
                    // It was let go of.
                    None if last.is_some() => return None,
                    _ => {}
                }
                receiver.changed().await.ok()?;
            }
        })
    }

    /// Wait until it stands as `wanted` says, or has ended. The state that it is in then.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_until(&self, wanted: impl Fn(&VerificationState) -> bool) -> Option<VerificationState> {
        let mut changes = std::pin::pin!(self.changes());
        while let Some(state) = changes.next().await {
            if state.is_ended() || wanted(&state) {
                return Some(state);
            }
        }
        None
    }

    /// Take part in what the other side asked for.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, request: mx_e2ee::VerificationRequested) -> mx_e2ee::Result<()> {
    /// // As an event had it. After a restart the verification is not there any more.
    /// match client.verification(request.id).accept().await {
    ///     Err(error) if error.code() == "verification_unknown" => println!("ask the other side to begin again"),
    ///     accepted => accepted?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `verification_not_now`, `verification_unknown`; of the store.
    pub async fn accept(&self) -> Result<()> {
        Ok(self.client.orchestrator().accept_verification(&self.id).await?)
    }

    /// Start to compare emoji and decimals.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn start(&self) -> Result<()> {
        Ok(self.client.orchestrator().start_sas(&self.id).await?)
    }

    /// A code for the other side to scan: draw it, or hand its bytes on.
    ///
    /// ```no_run
    /// # async fn example(verification: mx_e2ee::Verification) -> mx_e2ee::Result<()> {
    /// let code = verification.show_qr().await?;
    /// for y in 0..code.width() {
    ///     let row: String = (0..code.width()).map(|x| if code.is_dark(x, y) { "██" } else { "  " }).collect();
    ///     println!("{row}");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn show_qr(&self) -> Result<VerificationQr> {
        Ok(self.client.orchestrator().show_verification_qr(&self.id).await?)
    }

    /// Take the bytes of the code that the other side shows.
    ///
    /// ```no_run
    /// # async fn example(verification: mx_e2ee::Verification, scanned: Vec<u8>) -> mx_e2ee::Result<()> {
    /// // What a scanner gives: the bytes of the code, not text. Our side is confirmed by it.
    /// match verification.scan(&scanned).await {
    ///     Err(error) if error.code() == "verification_wrong_qr" => println!("it is not the code of this verification: {error}"),
    ///     taken => taken?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept`](Self::accept); `verification_wrong_qr`.
    pub async fn scan(&self, code: &[u8]) -> Result<()> {
        Ok(self.client.orchestrator().scan_verification_qr(&self.id, code).await?)
    }

    /// Somebody has looked: both sides show the same, or the other side has scanned our code.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn confirm(&self) -> Result<()> {
        Ok(self.client.orchestrator().confirm_verification(&self.id).await?)
    }

    /// Confirm it if every key that it would verify is among `expected`, which their owners gave us; else cancel it.
    ///
    /// ```no_run
    /// # async fn example(verification: mx_e2ee::Verification) -> mx_e2ee::Result<()> {
    /// let expected = ["the master key in base64 that its owner told us".to_owned()].into();
    /// if let Err(error) = verification.confirm_if(&expected).await {
    ///     println!("somebody shows other keys [{}]: {error}", error.code());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept`](Self::accept); `verification_unexpected_keys` when it was cancelled.
    pub async fn confirm_if(&self, expected: &BTreeSet<String>) -> Result<()> {
        let device = self.client.orchestrator();
        Ok(device.confirm_verification_if(&self.id, expected).await?)
    }

    /// Somebody has looked: the two sides do not show the same. It is cancelled.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn mismatch(&self) -> Result<()> {
        Ok(self.client.orchestrator().mismatch_verification(&self.id).await?)
    }

    /// Cancel or decline it.
    ///
    /// ```no_run
    /// # async fn example(verification: mx_e2ee::Verification) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::VerificationState;
    /// use std::time::Duration;
    ///
    /// // Nobody answers: do not leave the other side with a question that is not ours any more.
    /// let ready = verification.wait_until(|state| matches!(state, VerificationState::Ready { .. }));
    /// if tokio::time::timeout(Duration::from_secs(60), ready).await.is_err() {
    ///     verification.cancel().await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub async fn cancel(&self) -> Result<()> {
        Ok(self.client.orchestrator().cancel_verification(&self.id).await?)
    }
}
