//! A file that is to be sent: where it comes from, what it is, and what is said about it.

pub(crate) mod download;
pub(crate) mod error;
pub(crate) mod name;
pub(crate) mod received;
pub(crate) mod seal;
pub(crate) mod send;

use std::{
    fmt,
    io::{Cursor, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use self::error::AttachmentError;
pub(crate) use self::received::ReceivedFile;

/// A file that is to be sent with [`Room::send_attachment`](crate::Room::send_attachment).
///
/// ```no_run
/// # use mx_e2ee::{Attachment, Room};
/// # async fn example(room: Room) -> Result<(), mx_e2ee::Error> {
/// let picture = Attachment::from_path("eagle.jpg").caption("it has landed").dimensions(1920, 1080);
/// room.send_attachment(picture).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Attachment {
    pub(crate) origin: Origin,
    pub(crate) name: String,
    pub(crate) mime: Option<String>,
    pub(crate) kind: Option<AttachmentKind>,
    pub(crate) caption: Option<String>,
    pub(crate) dimensions: Option<(u32, u32)>,
    pub(crate) duration: Option<Duration>,
    pub(crate) thumbnail: Option<Box<Self>>,
}

/// Where the plaintext is read from, once.
pub(crate) enum Origin {
    Path(PathBuf),
    Reader(Box<dyn Read + Send>),
}

/// Contents stay out of logs.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Reader(_) => f.write_str("Reader"),
        }
    }
}

/// As what a file is shown: the `msgtype` of its event.
///
/// ```
/// use mx_e2ee::AttachmentKind;
///
/// assert_eq!(AttachmentKind::of_mime("image/png"), AttachmentKind::Image);
/// assert_eq!(AttachmentKind::of_mime("application/pdf").msgtype(), "m.file");
/// assert_eq!(AttachmentKind::of_msgtype("m.text"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttachmentKind {
    /// `m.file`: anything.
    File,
    /// `m.image`.
    Image,
    /// `m.audio`.
    Audio,
    /// `m.video`.
    Video,
}

impl AttachmentKind {
    /// The kind of a MIME type.
    #[must_use]
    pub fn of_mime(mime: &str) -> Self {
        match mime.split_once('/') {
            Some(("image", _)) => Self::Image,
            Some(("audio", _)) => Self::Audio,
            Some(("video", _)) => Self::Video,
            _ => Self::File,
        }
    }

    /// The kind of a `msgtype`. `None`: it is no file's.
    #[must_use]
    pub fn of_msgtype(msgtype: &str) -> Option<Self> {
        match msgtype {
            "m.file" => Some(Self::File),
            "m.image" => Some(Self::Image),
            "m.audio" => Some(Self::Audio),
            "m.video" => Some(Self::Video),
            _ => None,
        }
    }

    /// The `msgtype`.
    #[must_use]
    pub const fn msgtype(self) -> &'static str {
        match self {
            Self::File => "m.file",
            Self::Image => "m.image",
            Self::Audio => "m.audio",
            Self::Video => "m.video",
        }
    }
}

impl Attachment {
    /// A file of the disk. Its name is that of the path, and its MIME type that of the name's extension.
    #[must_use]
    pub fn from_path(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::new(Origin::Path(path.to_owned()), name)
    }

    /// What is in memory, under this name.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Attachment;
    ///
    /// let report = b"host,load\ndb1,0.3\n".to_vec();
    /// room.send_attachment(Attachment::from_bytes("load.csv", report).caption("the load of today")).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self::from_reader(name, Cursor::new(bytes.into()))
    }

    /// What a reader gives, to its end, under this name. It is read once, where blocking is allowed.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_e2ee::Attachment;
    /// use std::process::{Command, Stdio};
    ///
    /// // What a program writes goes through without a file of it in the clear.
    /// let mut dump = Command::new("pg_dump").arg("app").stdout(Stdio::piped()).spawn()?;
    /// if let Some(output) = dump.stdout.take() {
    ///     room.send_attachment(Attachment::from_reader("app.sql", output)).await?;
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn from_reader(name: impl Into<String>, reader: impl Read + Send + 'static) -> Self {
        Self::new(Origin::Reader(Box::new(reader)), name.into())
    }

    fn new(origin: Origin, name: String) -> Self {
        let mime = mime_guess::from_path(&name).first_raw().map(str::to_owned);
        Self {
            origin,
            name,
            mime,
            kind: None,
            caption: None,
            dimensions: None,
            duration: None,
            thumbnail: None,
        }
    }

    /// Another name.
    ///
    /// ```
    /// use mx_e2ee::Attachment;
    ///
    /// // Nobody else learns how the file is called here; its MIME type stays that of the first name.
    /// let report = Attachment::from_path("/tmp/tmp.3f2a.pdf").name("report.pdf");
    /// # drop(report);
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Another MIME type than that of the name's extension. It also decides as what the file is shown.
    ///
    /// ```
    /// use mx_e2ee::Attachment;
    ///
    /// // A name that says nothing; people are shown a picture all the same.
    /// let plot = Attachment::from_bytes("plot", vec![0; 8]).mime("image/png");
    /// # drop(plot);
    /// ```
    #[must_use]
    pub fn mime(mut self, mime: impl Into<String>) -> Self {
        self.mime = Some(mime.into());
        self
    }

    /// Show it as this, whatever its MIME type.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Attachment, AttachmentKind};
    /// use std::time::Duration;
    ///
    /// let spoken = Attachment::from_path("take-1").name("the weather.ogg").mime("audio/ogg").kind(AttachmentKind::Audio);
    /// room.send_attachment(spoken.duration(Duration::from_secs(12))).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn kind(mut self, kind: AttachmentKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Text to go with it.
    #[must_use]
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = Some(caption.into());
        self
    }

    /// Width and height of an image or a video, in pixels.
    #[must_use]
    pub const fn dimensions(mut self, width: u32, height: u32) -> Self {
        self.dimensions = Some((width, height));
        self
    }

    /// How long an audio or a video lasts.
    #[must_use]
    pub const fn duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    /// A small picture of it, which is encrypted under a key of its own. Of this, MIME type and dimensions are sent along.
    ///
    /// ```no_run
    /// # async fn example(room: mx_e2ee::Room) -> mx_e2ee::Result<()> {
    /// use mx_e2ee::Attachment;
    ///
    /// let small = Attachment::from_path("eagle-small.jpg").dimensions(320, 180);
    /// let picture = Attachment::from_path("eagle.jpg").dimensions(1920, 1080).thumbnail(small);
    /// room.send_attachment(picture).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn thumbnail(mut self, thumbnail: Self) -> Self {
        self.thumbnail = Some(Box::new(thumbnail));
        self
    }

    pub(crate) fn shown_as(&self) -> AttachmentKind {
        self.kind
            .unwrap_or_else(|| AttachmentKind::of_mime(self.mime.as_deref().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_as_what_a_file_is_shown() {
        for (name, kind) in [
            ("a.png", AttachmentKind::Image),
            ("a.MP4", AttachmentKind::Video),
            ("a.ogg", AttachmentKind::Audio),
            ("a.pdf", AttachmentKind::File),
            ("a.nobody-knows", AttachmentKind::File),
            ("png", AttachmentKind::File),
            ("", AttachmentKind::File),
        ] {
            let attachment = Attachment::from_bytes(name, b"");
            assert_eq!(attachment.shown_as(), kind, "{name}");
            assert_eq!(AttachmentKind::of_msgtype(kind.msgtype()), Some(kind));
        }
        let named = Attachment::from_bytes("a.png", b"").mime("application/pdf");
        assert_eq!(named.shown_as(), AttachmentKind::File);
        assert_eq!(named.kind(AttachmentKind::Video).shown_as(), AttachmentKind::Video);
        assert_eq!(AttachmentKind::of_msgtype("m.text"), None);
    }

    #[test]
    fn debug_hides_the_content() {
        let shown = format!("{:?}", Attachment::from_bytes("a.png", b"secret".to_vec()));
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
    }
}
