//! A file that an event speaks of: checked before anything is fetched.

use std::{fmt, time::Duration};

use matrix_sdk_crypto::MediaEncryptionInfo;
use mx_olm_orchestrator::Message;
use ruma::{MxcUri, OwnedMxcUri};
use serde_json::Value;

use super::{AttachmentError, AttachmentKind, name};

/// A file that somebody sent, encrypted, in an encrypted event. Everything that it says of itself is the sender's word,
/// and may be wrong; what is fetched is compared with its hash.
///
/// ```no_run
/// # async fn example(client: mx_e2ee::Client, message: mx_e2ee::Message) -> mx_e2ee::Result<()> {
/// use mx_e2ee::{AttachmentKind, ReceivedFile};
///
/// if let Some(file) = ReceivedFile::of(&message)?
///     && file.kind == Some(AttachmentKind::Image)
/// {
///     let path = client.files().max_bytes(10 << 20).download_into(&file, "/var/lib/mybot/pictures").await?;
///     println!("{:?} is kept as {}", file.claimed_name, path.display());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq)]
pub struct ReceivedFile {
    /// As what it is shown. `None`: it is a thumbnail.
    pub kind: Option<AttachmentKind>,
    /// The name that the sender gave it. Never to be used as a path: [`safe_name`](Self::safe_name) is for that.
    pub claimed_name: String,
    /// The text that goes with it.
    pub caption: Option<String>,
    /// Its MIME type.
    pub mime: Option<String>,
    /// Its size, in bytes.
    pub bytes: Option<u64>,
    /// Width and height of an image or a video, in pixels.
    pub dimensions: Option<(u64, u64)>,
    /// How long an audio or a video lasts.
    pub duration: Option<Duration>,
    /// A small picture of it. One that cannot be read is left out.
    pub thumbnail: Option<Box<Self>>,
    url: OwnedMxcUri,
    /// The `EncryptedFile`, which was checked.
    file: Value,
}

/// Keys and contents stay out of logs.
impl fmt::Debug for ReceivedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedFile")
            .field("kind", &self.kind)
            .field("url", &self.url)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl ReceivedFile {
    /// The file of an event. `None`: it has none.
    ///
    /// # Errors
    /// `attachment_not_encrypted` when the file or the event came as plaintext, `attachment_version`,
    /// `attachment_malformed`.
    pub fn of(message: &Message) -> Result<Option<Self>, AttachmentError> {
        if message.event_type != "m.room.message" {
            return Ok(None);
        }
        let file = Self::of_content(&message.content)?;
        if file.is_some() && message.encryption.is_none() {
            return Err(AttachmentError::NotEncrypted);
        }
        Ok(file)
    }

    /// The file that the content of an `m.room.message` speaks of, which must have been encrypted. `None`: it has none.
    ///
    /// ```
    /// use mx_e2ee::ReceivedFile;
    /// use serde_json::json;
    ///
    /// assert!(ReceivedFile::of_content(&json!({"msgtype": "m.text", "body": "hello"}))?.is_none());
    /// let plain = json!({"msgtype": "m.file", "body": "a.txt", "url": "mxc://example.org/a"});
    /// assert_eq!(ReceivedFile::of_content(&plain).unwrap_err().code(), "attachment_not_encrypted");
    /// # Ok::<_, mx_e2ee::AttachmentError>(())
    /// ```
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_content(content: &Value) -> Result<Option<Self>, AttachmentError> {
        let text = |name: &str| content.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(kind) = text("msgtype").as_deref().and_then(AttachmentKind::of_msgtype) else {
            return Ok(None);
        };
        let info = content.get("info").unwrap_or(&Value::Null);
        let file = match (content.get("file"), content.get("url")) {
            (Some(file), _) => file,
            (None, Some(_)) => return Err(AttachmentError::NotEncrypted),
            (None, None) => {
                return Err(AttachmentError::Malformed {
                    what: "it has no \"file\"",
                });
            }
        };
        let (body, filename) = (text("body"), text("filename"));
        // The body is the name, unless another name is there: then it is a caption.
        let claimed_name = filename.clone().or_else(|| body.clone()).unwrap_or_default();
        let thumbnail = info.get("thumbnail_file").and_then(|file| {
            let about = info.get("thumbnail_info").unwrap_or(&Value::Null);
            Self::described(None, "thumbnail".to_owned(), file, about).ok()
        });
        Ok(Some(Self {
            caption: body.filter(|body| filename.is_some_and(|filename| filename != *body)),
            thumbnail: thumbnail.map(Box::new),
            ..Self::described(Some(kind), claimed_name, file, info)?
        }))
    }

    fn described(
        kind: Option<AttachmentKind>,
        claimed_name: String,
        file: &Value,
        info: &Value,
    ) -> Result<Self, AttachmentError> {
        let number = |name: &str| info.get(name).and_then(Value::as_u64);
        Ok(Self {
            kind,
            claimed_name,
            caption: None,
            mime: info.get("mimetype").and_then(Value::as_str).map(str::to_owned),
            bytes: number("size"),
            dimensions: number("w").zip(number("h")),
            duration: number("duration").map(Duration::from_millis),
            thumbnail: None,
            url: checked(file)?,
            file: file.clone(),
        })
    }

    /// Where it is.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client, file: mx_e2ee::ReceivedFile) -> mx_e2ee::Result<()> {
    /// // What is there is the ciphertext: its address says nothing about the file, and its server can be told apart.
    /// if let Ok(server) = file.url().server_name() {
    ///     println!("it is kept on {server}");
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn url(&self) -> &MxcUri {
        &self.url
    }

    /// A name under which it can be kept in a directory: no path, nothing that hides what it is, no device, no option.
    ///
    /// ```
    /// # use mx_e2ee::ReceivedFile;
    /// # let content = serde_json::json!({"msgtype": "m.file", "body": "../../etc/passwd", "info": {}, "file": {
    /// #     "v": "v2", "url": "mxc://localhost/file", "iv": "8PHy8/T19vf4+fr7/P3+/w",
    /// #     "key": {"kty": "oct", "alg": "A256CTR", "ext": true, "key_ops": ["encrypt", "decrypt"],
    /// #         "k": "YD3rEBXKcb4rc67whX13gR81LAc7YQjXLZgQowkU3_Q"},
    /// #     "hashes": {"sha256": "ZjExoH6exWoMfQZrvET9Tu+kuul87rJwH1PSFT6C/6U"}}});
    /// # let Some(file) = ReceivedFile::of_content(&content)? else { unreachable!() };
    /// assert_eq!(file.claimed_name, "../../etc/passwd");
    /// assert_eq!(file.safe_name(), "passwd");
    /// # Ok::<_, mx_e2ee::AttachmentError>(())
    /// ```
    #[must_use]
    pub fn safe_name(&self) -> String {
        name::safe(&self.claimed_name)
    }

    pub(crate) fn encryption(&self) -> Result<MediaEncryptionInfo, AttachmentError> {
        encryption(&self.file)
    }
}

fn encryption(file: &Value) -> Result<MediaEncryptionInfo, AttachmentError> {
    serde_json::from_value(file.clone()).map_err(|_| AttachmentError::Malformed {
        what: "its key, its \"iv\" or its hash is not of the right length, or no base64",
    })
}

/// An `EncryptedFile` of version 2 (client-server API, "Sending encrypted attachments"): its address.
fn checked(file: &Value) -> Result<OwnedMxcUri, AttachmentError> {
    let malformed = |what| Err(AttachmentError::Malformed { what });
    match file.get("v").and_then(Value::as_str) {
        Some("v2") => {}
        Some(other) => {
            return Err(AttachmentError::UnsupportedVersion {
                version: other.chars().take(64).collect(),
            });
        }
        None => return malformed("it names no version"),
    }
    let key = file.get("key").unwrap_or(&Value::Null);
    let is = |name: &str, wanted: &str| key.get(name).and_then(Value::as_str) == Some(wanted);
    let operations = key.get("key_ops").and_then(Value::as_array);
    let may = |operation: &str| operations.is_some_and(|all| all.iter().any(|one| one == operation));
    if !is("kty", "oct") || !is("alg", "A256CTR") {
        return malformed("its key is not one of AES-256 in counter mode");
    }
    if !may("encrypt") || !may("decrypt") || key.get("ext") != Some(&Value::Bool(true)) {
        return malformed("its key does not allow to encrypt and decrypt");
    }
    if file.pointer("/hashes/sha256").and_then(Value::as_str).is_none() {
        return malformed("it has no SHA-256 hash");
    }
    encryption(file)?;
    let url = file.get("url").and_then(Value::as_str).unwrap_or_default();
    let url = OwnedMxcUri::from(url);
    if !url.is_valid() {
        return malformed("its address is not of the form mxc://server/id");
    }
    Ok(url)
}

#[cfg(test)]
mod tests;
