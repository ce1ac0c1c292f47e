//! Room keys, out into a file and in from one.

use mx_olm_orchestrator::{KeyFile, RoomKeyImport};
use ruma::OwnedRoomId;

use super::Client;
use crate::Result;

impl Client {
    /// The room keys of this device, or of these rooms only, in a file that Element reads. Write it with
    /// [`write_private_file`](crate::write_private_file). As
    /// [`Orchestrator::export_room_keys`](mx_olm_orchestrator::Orchestrator::export_room_keys).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::write_private_file;
    ///
    /// let file = client.export_room_keys("correct horse battery staple", None).await?;
    /// write_private_file("/mnt/safe/mybot.keys", file.text.as_bytes(), false)?;
    /// println!("{} room keys", file.room_keys);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `key_file_no_passphrase`; of the store.
    pub async fn export_room_keys(&self, passphrase: &str, rooms: Option<&[OwnedRoomId]>) -> Result<KeyFile> {
        Ok(self.0.device.export_room_keys(passphrase, rooms).await?)
    }

    /// Take the room keys of a key file, as Element and this crate write them: all or none. What waited for them is
    /// received afterwards. As
    /// [`Orchestrator::import_room_keys`](mx_olm_orchestrator::Orchestrator::import_room_keys).
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::fs::read_to_string("/mnt/safe/mybot.keys")?;
    /// let taken = client.import_room_keys(&file, "correct horse battery staple").await?;
    /// println!("{} of {} room keys are new here", taken.imported, taken.total);
    ///
    /// // What still cannot be read: why, and another device of ours is asked for the key.
    /// for event in client.waiting(0, 20).await? {
    ///     println!("{}", client.explain(&event).await?);
    ///     client.request_key(&event).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `key_file_wrong_passphrase`, `key_file_rejected`; of the store. Nothing is taken then.
    pub async fn import_room_keys(&self, file: &str, passphrase: &str) -> Result<RoomKeyImport> {
        Ok(self.0.device.import_room_keys(file, passphrase).await?)
    }
}
