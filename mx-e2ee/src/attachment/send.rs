//! Sending a file: encrypt it, upload it, and send the event that says how to read it.

use std::{path::Path, sync::Arc};

use mx_olm_orchestrator::SendReceipt;
use mx_transport::Homeserver;
use ruma::events::room::EncryptedFile;
use serde_json::{Map, Value, json};

use super::{Attachment, AttachmentKind, seal};
use crate::{Error, Result, Room, SendOptions};

impl Room {
    /// Encrypt a file, upload it, and send it to everybody who may read in the room.
    ///
    /// It is read once, in pieces: memory does not grow with it. The encrypted file waits in the client's directory until
    /// it is uploaded, without a name, so that nothing of it is left however this ends. An upload is tried again with the
    /// same bytes. The homeserver learns how large the file is, and neither its name nor its kind.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Attachment;
    ///
    /// match room.send_attachment(Attachment::from_path("/var/log/backup.log")).await {
    ///     Err(error) if error.code() == "too_large" => drop(room.post("the log is too large for this homeserver").await?),
    ///     sent => println!("{} devices can read it", sent?.readable_by()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `too_large` where the homeserver takes no file of this size, before it is uploaded (a thumbnail comes after its file);
    /// `file_unreadable`,
    /// `file_not_writable`; as [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send). A file whose event was not sent stays on the homeserver, where nobody can read it.
    pub async fn send_attachment(&self, attachment: Attachment) -> Result<SendReceipt> {
        self.send_attachment_with(attachment, SendOptions::default()).await
    }

    /// As [`send_attachment`](Self::send_attachment), and say how.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Attachment, Recipients, SendOptions};
    ///
    /// // The key of the file goes to trusted devices only.
    /// let options = SendOptions { recipients: Some(Recipients::OnlyTrusted), ..SendOptions::default() };
    /// let sent = room.send_attachment_with(Attachment::from_path("secrets.kdbx"), options).await?;
    /// println!("{} devices can read it", sent.readable_by());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send_attachment`](Self::send_attachment).
    ///
    /// # Cancel safety
    /// As [`send_attachment`](Self::send_attachment).
    pub async fn send_attachment_with(&self, attachment: Attachment, options: SendOptions) -> Result<SendReceipt> {
        // A refusal that is certain costs no upload.
        if !self.is_encrypted().await? {
            let room = self.id().to_owned();
            return Err(Error::Orchestrator(mx_olm_orchestrator::Error::RoomNotEncrypted {
                room,
            }));
        }
        let homeserver = self.client().homeserver();
        let content = upload(homeserver, &self.client().spool_directory(), attachment).await?;
        self.send_with("m.room.message", content, options).await
    }
}

/// Upload a file and its thumbnail: the content of their event.
async fn upload(homeserver: &Homeserver, directory: &Path, attachment: Attachment) -> Result<Value> {
    let max = homeserver.max_upload_bytes().await?;
    let msgtype = attachment.shown_as().msgtype();
    let mut info = info(&attachment);
    let Attachment {
        origin,
        name,
        caption,
        thumbnail,
        ..
    } = attachment;
    let (file, bytes) = upload_one(homeserver, directory, max, origin).await?;
    info.insert("size".to_owned(), bytes.into());
    if let Some(thumbnail) = thumbnail {
        let mut about = self::info(&thumbnail);
        let (file, bytes) = upload_one(homeserver, directory, max, thumbnail.origin).await?;
        about.insert("size".to_owned(), bytes.into());
        info.insert("thumbnail_file".to_owned(), file);
        info.insert("thumbnail_info".to_owned(), about.into());
    }
    // "filename" says that "body" is a caption, where they differ (client-server API, "Media captions").
    Ok(json!({
        "msgtype": msgtype,
        "body": caption.unwrap_or_else(|| name.clone()),
        "filename": name,
        "file": file,
        "info": info,
    }))
}

/// What the caller says about a file.
fn info(attachment: &Attachment) -> Map<String, Value> {
    let mut info = Map::new();
    let kind = attachment.shown_as();
    if let Some(mime) = &attachment.mime {
        info.insert("mimetype".to_owned(), mime.as_str().into());
    }
    if let Some((width, height)) = attachment.dimensions
        && matches!(kind, AttachmentKind::Image | AttachmentKind::Video)
    {
        info.insert("w".to_owned(), width.into());
        info.insert("h".to_owned(), height.into());
    }
    if let Some(duration) = attachment.duration
        && matches!(kind, AttachmentKind::Audio | AttachmentKind::Video)
    {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        info.insert("duration".to_owned(), milliseconds.into());
    }
    info
}

/// Encrypt one file and upload it: its `EncryptedFile`, and its size in bytes.
async fn upload_one(
    homeserver: &Homeserver,
    directory: &Path,
    max: Option<u64>,
    origin: super::Origin,
) -> Result<(Value, u64)> {
    let directory = directory.to_owned();
    let sealed = seal::blocking(move |wanted| seal::seal(origin, &directory, max, wanted)).await?;
    let uri = homeserver.upload(Arc::new(sealed.source)).await?;
    let file = EncryptedFile::new(uri, sealed.encryption.encryption_info, sealed.encryption.hashes);
    let file = serde_json::to_value(file).map_err(mx_transport::RequestError::build)?;
    Ok((file, sealed.bytes))
}
