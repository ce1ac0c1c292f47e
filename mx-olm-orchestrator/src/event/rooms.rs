//! What an app is told about who is in its rooms, and about what it sent and did not wait for.

use ruma::{OwnedEventId, OwnedRoomId, OwnedTransactionId, OwnedUserId, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};

/// Somebody, maybe ourselves, came, went, was invited, knocked or was turned out: told where
/// [`Options::memberships`](crate::Options::memberships) says so, when it comes. It is state, which is never encrypted: the
/// homeserver's word. A change of a name or a picture is none, where the homeserver says what was before.
///
/// ```
/// use mx_olm_orchestrator::{Event, MembershipChanged};
/// use ruma::events::room::member::MembershipState;
///
/// fn greeting(event: &Event) -> Option<String> {
///     match event {
///         Event::MembershipChanged(MembershipChanged { user_id, membership: MembershipState::Join, .. }) => {
///             Some(format!("welcome, {user_id}"))
///         }
///         _ => None,
///     }
/// }
/// # let _ = greeting;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct MembershipChanged {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event's id.
    pub event_id: OwnedEventId,
    /// Whose membership.
    pub user_id: OwnedUserId,
    /// Who changed it: where it is another one, it is an invitation, a removal or a ban, or the end of one.
    pub sender: OwnedUserId,
    /// When the sender's homeserver took it, in milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// What it is now.
    pub membership: MembershipState,
    /// What it was before, where the homeserver says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<MembershipState>,
    /// Why, where the sender says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An event that an earlier call, or an earlier process, left in the outbox, and that the homeserver has now: the receipt of a
/// send that nobody waited for to its end. A process that was killed a moment after a send had ended well may not know that
/// any more: the next one tells it here.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::Event;
///
/// // An alarm of before the restart, of which `Error::SendPending` told the transaction id.
/// for delivery in device.inbox(None, 100).await? {
///     if let Event::Sent(sent) = &delivery.event {
///         println!("{} arrived as {}", sent.transaction_id, sent.event_id);
///     }
///     device.acknowledge(&[delivery]).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Sent {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event, as the homeserver has it.
    pub event_id: OwnedEventId,
    /// The transaction id, as [`Error::SendPending`](crate::Error::SendPending) had it.
    pub transaction_id: OwnedTransactionId,
    /// The Megolm session that encrypted it.
    pub session_id: String,
    /// How many other devices can read it. `None`: another process gave them the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readable_by: Option<usize>,
}
