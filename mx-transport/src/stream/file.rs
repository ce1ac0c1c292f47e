//! Files as sources and sinks. They are read and written where blocking is allowed.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{Chunks, Sink, Source};

/// How much of a file is in memory at once, in bytes.
const CHUNK_BYTES: usize = 128 * 1024;

/// A file that is sent. It needs no name, and must not change while it is sent.
///
/// ```no_run
/// # async fn example(homeserver: mx_transport::Homeserver) -> Result<(), Box<dyn std::error::Error>> {
/// use std::{fs::File, sync::Arc};
/// use mx_transport::FileSource;
///
/// // The bytes as they are: an encrypted file is encrypted before.
/// let address = homeserver.upload(Arc::new(FileSource::new(File::open("eagle.enc")?)?)).await?;
/// println!("{address}");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct FileSource {
    file: Arc<Mutex<File>>,
    bytes: u64,
}

impl FileSource {
    /// All of a file that is open for reading.
    ///
    /// # Errors
    /// When its length cannot be read.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            bytes,
        })
    }

    /// The chunk at an offset. Empty: it is the end.
    fn read_at(&self, offset: u64) -> io::Result<Bytes> {
        let left = self.bytes.saturating_sub(offset);
        let wanted = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut chunk = vec![0; wanted];
        // Two attempts may read by turns: the place is set each time.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut chunk)?;
        Ok(chunk.into())
    }
}

impl Source for FileSource {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn open(&self) -> Chunks {
        let source = self.clone();
        stream::try_unfold(0, move |offset| {
            let source = source.clone();
            async move {
                let chunk = blocking(move || source.read_at(offset)).await?;
                let next = offset + chunk.len() as u64;
                Ok((!chunk.is_empty()).then_some((chunk, next)))
            }
        })
        .boxed()
    }
}

/// A file that is written, up to so many bytes.
///
/// ```no_run
/// # use mx_transport::Homeserver;
/// # async fn example(homeserver: Homeserver, address: ruma::OwnedMxcUri) -> Result<(), Box<dyn std::error::Error>> {
/// use std::fs::File;
/// use mx_transport::FileSink;
///
/// let mut sink = FileSink::new(File::create("eagle.enc")?, 10 << 20);
/// match homeserver.download(&address, &mut sink).await {
///     Err(error) if error.code() == "answer_too_large" => println!("more than 10 MiB"),
///     fetched => fetched?,
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct FileSink {
    file: Arc<Mutex<File>>,
    max_bytes: u64,
}

impl FileSink {
    /// Into a file that is open for writing. What was in it is forgotten.
    #[must_use]
    pub fn new(file: File, max_bytes: u64) -> Self {
        Self {
            file: Arc::new(Mutex::new(file)),
            max_bytes,
        }
    }

    async fn with_file(&self, work: impl FnOnce(&mut File) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        blocking(move || work(&mut file.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

#[async_trait]
impl Sink for FileSink {
    fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.with_file(|file| {
            file.set_len(0)?;
            file.rewind()
        })
        .await
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.with_file(move |file| file.write_all(&chunk)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("reading or writing a file was given up")))
}
