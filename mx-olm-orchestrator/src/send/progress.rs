//! How far a large send is: for whoever waits for it.

use ruma::{OwnedRoomId, RoomId};
use tokio::sync::watch;

use crate::Orchestrator;

/// How far one step is: of a send, or of filling or reading a backup.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) {
/// // Beside a send to a large room.
/// let mut progress = device.progress();
/// while progress.changed().await.is_ok() {
///     if let Some(now) = progress.borrow_and_update().as_ref() {
///         println!("{:?}: {} of {}", now.step, now.done, now.total);
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The room whose send it is. `None`: it is for no room in particular.
    pub room_id: Option<OwnedRoomId>,
    /// What is done.
    pub step: ProgressStep,
    /// How many of it are done.
    pub done: usize,
    /// How many there are to do.
    pub total: usize,
}

/// What is being done.
///
/// ```
/// use mx_olm_orchestrator::ProgressStep;
///
/// fn words(step: ProgressStep) -> &'static str {
///     match step {
///         ProgressStep::Devices => "asking who has which devices",
///         ProgressStep::Sessions => "opening sessions with new devices",
///         ProgressStep::Keys => "giving the room key",
///         ProgressStep::Backup => "filling the backup",
///         ProgressStep::Restore => "reading the backup",
///         _ => "working",
///     }
/// }
/// # assert_eq!(words(ProgressStep::Keys), "giving the room key");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProgressStep {
    /// Asking for the devices of users.
    Devices,
    /// Opening sessions with devices.
    Sessions,
    /// Giving the room key to devices.
    Keys,
    /// Putting room keys into the backup.
    Backup,
    /// Taking room keys out of the backup.
    Restore,
}

impl Orchestrator {
    /// How far sends are, and what fills and reads backups, whenever it changes. Steps that do nothing are not shown; when sends to several rooms are under
    /// way, the newest news is. Only the last is kept: who looks seldom misses some.
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
    /// assert!(device.progress().borrow().is_none(), "nothing was under way yet");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress_sender().subscribe()
    }

    pub(crate) fn progress_at(&self, room: &RoomId, step: ProgressStep, done: usize, total: usize) {
        self.tell_progress(Some(room), step, done, total);
    }

    pub(crate) fn tell_progress(&self, room: Option<&RoomId>, step: ProgressStep, done: usize, total: usize) {
        self.progress_sender().send_replace(Some(Progress {
            room_id: room.map(ToOwned::to_owned),
            step,
            done,
            total,
        }));
    }
}
