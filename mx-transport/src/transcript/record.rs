//! Writing a transcript.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{
    HEADER, TranscriptError,
    body::Opaque,
    line::{Asked, Line, Told},
};
use crate::{
    Chunks, Sink, Source, Transport,
    layer::{Answer, Job, Layer, transport},
};

/// A transport that writes down what goes through it, without tokens and other secrets, for
/// [`Replay`](crate::Replay) to tell it again.
///
/// A body that is neither JSON nor a form is left out but for its length, since nobody can tell what in it is a secret: an
/// answer to a login that was cut is one. [`verbatim`](Self::verbatim) keeps them. Files are in the transcript as well,
/// and in memory until their exchange ends: it is for tests. What cannot be written
/// is told by [`finish`](Self::finish), and the exchange goes on. Clones write to the same transcript.
///
/// ```no_run
/// # use mx_transport::{Record, Replay, Transport, TranscriptError};
/// # fn example(client: impl Transport) -> Result<(), TranscriptError> {
/// let recorded = Record::in_memory(client);
/// // … requests go through it, and later, without a network:
/// let told_again = Replay::from_transcript(&recorded.transcript()?)?;
/// # drop(told_again);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Record<T> {
    inner: T,
    book: Arc<Mutex<Book>>,
    opaque: Opaque,
}

#[derive(Debug)]
struct Book {
    file: Option<(File, PathBuf)>,
    /// Requests in the order in which they went out; the first of them may still be under way. Those that were written to
    /// the file are not here any more.
    lines: VecDeque<Entry>,
    /// How many were written.
    written: usize,
    failed: Option<io::Error>,
}

#[derive(Debug)]
enum Entry {
    UnderWay,
    Ended(Box<Line>),
    /// It was dropped: nobody knows what came of it.
    Dropped,
}

impl<T: Transport> Record<T> {
    /// Write what goes through `inner` to a new file, which only its owner may read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let transcript = [r#"{"mx-transcript":1}"#, r#"{"method":"GET","path":"/sync","answer":{"status":200}}"#].join("\n");
    /// # let server = mx_transport::Replay::from_transcript(&transcript)?;
    /// # let directory = tempfile::tempdir()?;
    /// use bytes::Bytes;
    /// use mx_transport::{Record, Replay, Transport};
    ///
    /// let file = directory.path().join("sync.transcript");
    /// let recorded = Record::to_file(server, &file)?.verbatim();
    /// recorded.send(http::Request::get("https://hs.test/sync").body(Bytes::new())?).await?;
    /// recorded.finish()?;
    /// assert_eq!(Replay::from_file(&file)?.left(), 1, "one exchange is told again");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`TranscriptError::Io`] when there is a file already, or none can be made.
    pub fn to_file(inner: T, path: &Path) -> Result<Self, TranscriptError> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        writeln!(file, "{HEADER}")?;
        Ok(Self::new(inner, Some((file, path.to_owned()))))
    }

    /// Keep what goes through `inner` in memory, for [`transcript`](Self::transcript).
    pub fn in_memory(inner: T) -> Self {
        Self::new(inner, None)
    }

    fn new(inner: T, file: Option<(File, PathBuf)>) -> Self {
        let book = Book {
            file,
            lines: VecDeque::new(),
            written: 0,
            failed: None,
        };
        Self {
            inner,
            book: Arc::new(Mutex::new(book)),
            opaque: Opaque::Left,
        }
    }

    /// Keep bodies as they are that are neither JSON nor a form, with all that is in them.
    #[must_use]
    pub const fn verbatim(mut self) -> Self {
        self.opaque = Opaque::Kept;
        self
    }

    /// What was recorded so far: up to the first exchange that has not ended. Where there is a file, what is in it.
    ///
    /// # Errors
    /// [`TranscriptError::Io`] when it cannot be put together, or the file is not where it was.
    pub fn transcript(&self) -> Result<String, TranscriptError> {
        if let Some((_, path)) = &self.book().file {
            return Ok(std::fs::read_to_string(path)?);
        }
        let mut text = format!("{HEADER}\n");
        for entry in &self.book().lines {
            match entry {
                Entry::UnderWay => break,
                Entry::Dropped => {}
                Entry::Ended(line) => {
                    text.push_str(&serde_json::to_string(line).map_err(io::Error::from)?);
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }

    /// Make sure that what was recorded is in the file.
    ///
    /// # Errors
    /// [`TranscriptError::Io`] when some of it could not be written.
    pub fn finish(&self) -> Result<(), TranscriptError> {
        let mut book = self.book();
        if let Some(error) = book.failed.take() {
            return Err(error.into());
        }
        match &book.file {
            Some((file, _)) => Ok(file.sync_all()?),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn lines_in_memory(&self) -> usize {
        self.book().lines.len()
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// Write what has ended, in the order of going out.
    fn write(&mut self) {
        let Some((file, _)) = &mut self.file else { return };
        while let Some(entry) = self.lines.front() {
            let written = match entry {
                Entry::UnderWay => return,
                Entry::Dropped => Ok(()),
                Entry::Ended(line) => serde_json::to_string(line)
                    .map_err(io::Error::from)
                    .and_then(|line| writeln!(file, "{line}")),
            };
            if let Err(error) = written {
                tracing::warn!("a transcript cannot be written");
                self.failed.get_or_insert(error);
            }
            self.lines.pop_front();
            self.written += 1;
        }
    }
}

/// An exchange that is under way: it has its place in the book, whatever becomes of it.
struct Place<'a> {
    book: &'a Mutex<Book>,
    number: usize,
}

impl<'a> Place<'a> {
    fn take(book: &'a Mutex<Book>) -> Self {
        let mut open = lock(book);
        open.lines.push_back(Entry::UnderWay);
        let number = open.written + open.lines.len() - 1;
        drop(open);
        Self { book, number }
    }

    fn fill(&self, entry: Entry) {
        let mut book = lock(self.book);
        let number = self.number.checked_sub(book.written);
        if let Some(place) = number.and_then(|number| book.lines.get_mut(number))
            && matches!(place, Entry::UnderWay)
        {
            *place = entry;
        }
        book.write();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.fill(Entry::Dropped);
    }
}

transport!(Record);

#[async_trait]
impl<T: Transport> Layer for Record<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let place = Place::take(&self.book);
        let (asked, told, answer) = match job {
            Job::Send(request) => {
                let body = request.body().clone();
                let answer = job.run(&self.inner).await;
                (
                    Asked::of(job, &body, self.opaque),
                    Told::of(&answer, None, self.opaque),
                    answer,
                )
            }
            Job::Upload(request) => {
                let copied = Copied::of(Arc::clone(request.body()));
                *request.body_mut() = Arc::new(copied.clone());
                let answer = job.run(&self.inner).await;
                let told = Told::of(&answer, None, self.opaque);
                (Asked::of(job, &copied.content(), Opaque::Kept), told, answer)
            }
            Job::Download(request, sink) => {
                let mut copying = Copying {
                    sink: *sink,
                    copy: Vec::new(),
                };
                let answer = Job::Download(request.clone(), &mut copying).run(&self.inner).await;
                let (copy, body) = (copying.copy, request.body().clone());
                (
                    Asked::of(job, &body, self.opaque),
                    Told::of(&answer, Some(&copy), self.opaque),
                    answer,
                )
            }
        };
        place.fill(Entry::Ended(Box::new(Line { asked, told })));
        answer
    }
}

/// A source whose content is kept as it is read.
#[derive(Clone, Debug)]
struct Copied {
    source: Arc<dyn Source>,
    copy: Arc<Mutex<Vec<u8>>>,
}

impl Copied {
    fn of(source: Arc<dyn Source>) -> Self {
        Self {
            source,
            copy: Arc::default(),
        }
    }

    fn content(&self) -> Vec<u8> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Source for Copied {
    fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    fn open(&self) -> Chunks {
        let copy = Arc::clone(&self.copy);
        copy.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let chunks = self.source.open().inspect_ok(move |chunk| {
            copy.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(chunk);
        });
        Box::pin(chunks)
    }
}

/// A sink whose content is kept as it is written.
#[derive(Debug)]
struct Copying<'a> {
    sink: &'a mut dyn Sink,
    copy: Vec<u8>,
}

#[async_trait]
impl Sink for Copying<'_> {
    fn max_bytes(&self) -> u64 {
        self.sink.max_bytes()
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.copy.clear();
        self.sink.restart().await
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.copy.extend_from_slice(&chunk);
        self.sink.write(chunk).await
    }
}
