//! Whom a client asks to verify, what it is asked, and what is under way.

use std::collections::BTreeSet;

use futures_util::{Stream, stream};
use mx_olm_orchestrator::{VerificationId, VerificationState};
use ruma::{DeviceId, RoomId, UserId};

use super::Verification;
use crate::{Client, Result};

impl Client {
    /// Ask a user to verify, in the room that is for the two of us alone.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::user_id;
    ///
    /// let friend = user_id!("@friend:example.org");
    /// let verification = match client.verify_user(friend).await {
    ///     // There is no room of the two of us.
    ///     Err(error) if error.code() == "verification_no_way" => {
    ///         let room = client.create_room(None, &[friend.to_owned()]).await?;
    ///         client.verify_user_in(room.id(), friend).await?
    ///     }
    ///     asked => asked?,
    /// };
    /// println!("{:?}", verification.state());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `verification_no_way` when there is no such room: use [`verify_user_in`](Self::verify_user_in) or
    /// [`verify_device`](Self::verify_device); else as these.
    pub async fn verify_user(&self, user: &UserId) -> Result<Verification> {
        let room = self.room_with(user).await?;
        self.verify_user_in(&room, user).await
    }

    /// Ask a user to verify, in this room.
    ///
    /// # Errors
    /// `verification_no_identity` when the user has none; `verification_busy`; as [`Room::send`](crate::Room::send).
    pub async fn verify_user_in(&self, room: &RoomId, user: &UserId) -> Result<Verification> {
        let id = self.orchestrator().verify_user_in(room, user).await?;
        Ok(self.verification(id))
    }

    /// Ask one device of a user, or another one of ours, to verify.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::ruma::{device_id, user_id};
    ///
    /// let verification = client.verify_device(user_id!("@friend:example.org"), device_id!("PHONE")).await?;
    /// println!("asked, in {}", verification.id());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `verification_no_device`, `verification_busy`; of the request, of the store.
    pub async fn verify_device(&self, user: &UserId, device: &DeviceId) -> Result<Verification> {
        let id = self.orchestrator().verify_device(user, device).await?;
        Ok(self.verification(id))
    }

    /// Ask our other devices to verify this one, or to be verified by it.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // Element, where the account is open too, asks its user whether this is right.
    /// let verification = client.verify_own_devices().await?;
    /// println!("{:?}", verification.state());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `verification_no_identity`, `verification_busy`; of the request, of the store.
    pub async fn verify_own_devices(&self) -> Result<Verification> {
        let id = self.orchestrator().verify_own_devices().await?;
        Ok(self.verification(id))
    }

    /// A verification by its name, as an event has it.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, request: mx_e2ee::VerificationRequested) {
    /// // What an event named. Nothing is asked: whether it is under way, its state says.
    /// match client.verification(request.id).state() {
    ///     Some(state) => println!("{state:?}"),
    ///     None => println!("it has long ended"),
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn verification(&self, id: VerificationId) -> Verification {
        Verification {
            client: self.clone(),
            id,
        }
    }

    /// The verifications that are under way.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// // Before the program ends: nobody is left to wait.
    /// for verification in client.verifications() {
    ///     println!("{} is not done: {:?}", verification.id(), verification.state());
    ///     verification.cancel().await?;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn verifications(&self) -> Vec<Verification> {
        let shown = self.orchestrator().verifications();
        let live: Vec<VerificationId> = shown
            .borrow()
            .values()
            .filter(|one| !one.state.is_ended())
            .map(|one| one.id.clone())
            .collect();
        live.into_iter().map(|id| self.verification(id)).collect()
    }

    /// What others ask us to verify, each once, as long as it waits for us: what is there, and what comes. They are
    /// events too ([`Event::VerificationRequested`](crate::Event::VerificationRequested)), which survive a restart; the
    /// verifications themselves do not.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use futures_util::StreamExt;
    ///
    /// // Beside a loop that receives.
    /// let mut requests = std::pin::pin!(client.verification_requests());
    /// while let Some(request) = requests.next().await {
    ///     if request.id().user_id == "@boss:example.org" {
    ///         request.accept().await?;
    ///     } else {
    ///         request.cancel().await?;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn verification_requests(&self) -> impl Stream<Item = Verification> + Send + use<> {
        let start = (self.clone(), self.orchestrator().verifications(), BTreeSet::new());
        stream::unfold(start, |(client, mut receiver, mut given)| async move {
            loop {
                let next = receiver
                    .borrow_and_update()
                    .values()
                    .find(|one| !one.by_us && one.state == VerificationState::Requested && !given.contains(&one.id))
                    .map(|one| one.id.clone());
                if let Some(id) = next {
                    given.insert(id.clone());
                    let verification = client.verification(id);
                    return Some((verification, (client, receiver, given)));
                }
                receiver.changed().await.ok()?;
            }
        })
    }
}
