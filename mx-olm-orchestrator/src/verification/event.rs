//! What an app is told of verifications exactly, also after a restart.

use ruma::{OwnedDeviceId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use super::{VerificationId, VerificationOutcome};

/// Somebody asks to verify us, or another device of ours does.
///
/// ```no_run
/// # use mx_olm_orchestrator::{Event, Orchestrator};
/// # async fn example(device: Orchestrator, event: &Event) -> Result<(), mx_olm_orchestrator::Error> {
/// match event {
///     Event::VerificationRequested(asked) => device.accept_verification(&asked.id).await?,
///     Event::VerificationEnded(ended) => println!("{}: {:?}", ended.id, ended.outcome),
///     _ => {}
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct VerificationRequested {
    /// Which verification this is.
    #[serde(flatten)]
    pub id: VerificationId,
    /// The device that asks.
    pub device_id: Option<OwnedDeviceId>,
    /// The room, where it happens in one.
    pub room_id: Option<OwnedRoomId>,
}

/// A verification has ended.
///
/// ```
/// use mx_olm_orchestrator::{Event, VerificationEnded, VerificationOutcome};
///
/// fn line(event: &Event) -> Option<String> {
///     let Event::VerificationEnded(VerificationEnded { id, outcome, .. }) = event else { return None };
///     Some(match outcome {
///         VerificationOutcome::Done { user: true, .. } => format!("{} is verified", id.user_id),
///         VerificationOutcome::Done { devices, .. } => format!("devices of {} are verified: {devices:?}", id.user_id),
///         VerificationOutcome::Cancelled { code, .. } if code == "m.mismatched_sas" => format!("{} may be somebody else", id.user_id),
///         VerificationOutcome::Cancelled { reason, .. } => reason.clone(),
///         other => format!("{other:?}"),
///     })
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct VerificationEnded {
    /// Which verification this was.
    #[serde(flatten)]
    pub id: VerificationId,
    /// The other device, where it was known.
    pub device_id: Option<OwnedDeviceId>,
    /// The room, where it happened in one.
    pub room_id: Option<OwnedRoomId>,
    /// How.
    #[serde(flatten)]
    pub outcome: VerificationOutcome,
}
