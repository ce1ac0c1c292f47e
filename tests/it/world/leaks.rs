//! I3 and I4 beyond the wire: what must stay secret is in no log line, no row of a disk and no file.
//!
//! Everything that is written is looked at as it is written: log lines of every crate at TRACE, the engine's too, by a
//! subscriber of the whole process; rows of a memory disk by a backend around it. Some secrets have a form that every
//! test shares (all tokens of the test homeserver end alike, all texts are `m.text`, the store key is one); a canary is
//! random and belongs to one world.

use std::{
    cell::Cell,
    io,
    path::Path,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use mx_crypto_store::backend::{Backend, BackendError, Batch, Memory, Promises};
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    fmt::{self, MakeWriter, format::FmtSpan},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// What every token of the test homeserver ends with.
const TOKEN: &str = "-of-the-test-homeserver";
/// The key of [`super::key`] in hexadecimal and in base64, as far as they are the same in all paddings.
const KEYS: [&str; 2] = [
    "0707070707070707070707070707070707070707070707070707070707070707",
    "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH",
];
const RAW_KEY: [u8; 32] = [7; 32];
/// In every text message, and in no log line that says nothing of one.
const TEXT: &str = "m.text";

struct Secret {
    world: Option<usize>,
    what: &'static str,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Book {
    secrets: Vec<Secret>,
    leaks: Vec<Leak>,
}

struct Leak {
    /// Whose secret it was.
    world: Option<usize>,
    /// The test on whose thread it was found.
    test: Option<String>,
    words: String,
}

static BOOK: Mutex<Option<Book>> = Mutex::new(None);
/// How many worlds want log lines to be looked at.
static LISTENING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How many of them were made on this thread.
    static LISTENING_HERE: Cell<usize> = const { Cell::new(0) };
    /// Whether a test runs on this thread, and not something that all tests share.
    static OF_TEST: bool = of_test().is_some();
}

/// Whether a log line is wanted: from the threads of the worlds that listen, and from those that are no test's.
fn listens() -> bool {
    LISTENING_HERE.get() > 0 || (LISTENING.load(Ordering::Relaxed) > 0 && !OF_TEST.with(|of_test| *of_test))
}

fn with_book<T>(work: impl FnOnce(&mut Book) -> T) -> T {
    let mut book: MutexGuard<'_, Option<Book>> = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
    work(book.get_or_insert_with(|| Book {
        secrets: universal(),
        leaks: Vec::new(),
    }))
}

fn universal() -> Vec<Secret> {
    let of = |what, bytes: &[u8]| Secret {
        world: None,
        what,
        bytes: bytes.to_vec(),
    };
    let mut all = vec![
        of("an access token", TOKEN.as_bytes()),
        of("a plaintext", TEXT.as_bytes()),
        of("the store key", &RAW_KEY),
    ];
    all.extend(KEYS.map(|key| of("the store key", key.as_bytes())));
    all
}

/// A world wants log lines to be looked at, from now until [`rest`].
pub(super) fn listen() {
    static INSTALLED: Once = Once::new();
    LISTENING.fetch_add(1, Ordering::SeqCst);
    LISTENING_HERE.set(LISTENING_HERE.get() + 1);
    INSTALLED.call_once(|| {
        let lines = fmt::layer()
            .with_writer(Lines)
            .with_ansi(false)
            .with_span_events(FmtSpan::NEW)
            .with_filter(dynamic_filter_fn(|_, _| listens()));
        tracing_subscriber::registry().with(lines).init();
    });
}

/// The opposite of [`listen`].
pub(super) fn rest() {
    LISTENING.fetch_sub(1, Ordering::SeqCst);
    // It may end on another thread than it began on.
    LISTENING_HERE.set(LISTENING_HERE.get().saturating_sub(1));
}

/// This text is a secret of a world.
pub(super) fn guard(world: usize, what: &'static str, secret: &str) {
    let secret = Secret {
        world: Some(world),
        what,
        bytes: secret.as_bytes().to_vec(),
    };
    with_book(|book| book.secrets.push(secret));
}

/// What was found of a world's secrets, and of those that all share, on this test's thread or on one that is no test's. They
/// are forgotten.
pub(super) fn take(world: usize) -> Vec<String> {
    let test = of_test();
    with_book(|book| {
        book.secrets.retain(|secret| secret.world != Some(world));
        let (ours, others) = std::mem::take(&mut book.leaks)
            .into_iter()
            .partition(|leak| match leak.world {
                Some(of) => of == world,
                None => leak.test.is_none() || leak.test == test,
            });
        book.leaks = others;
        let ours: Vec<Leak> = ours;
        ours.into_iter().map(|leak| leak.words).collect()
    })
}

/// Look for secrets in `bytes`. `token_allowed`: it is the one place where a token is kept.
pub(super) fn look(bytes: &[u8], place: &str, token_allowed: bool) {
    let test = of_test();
    with_book(|book| {
        for index in find(bytes, &book.secrets) {
            let Some(secret) = book.secrets.get(index) else {
                continue;
            };
            if token_allowed && secret.bytes == TOKEN.as_bytes() {
                continue;
            }
            let leak = Leak {
                world: secret.world,
                test: test.clone(),
                words: format!("{} is in {place}", secret.what),
            };
            book.leaks.push(leak);
        }
    });
}

/// Which secrets are in `bytes`: one pass over them, since a debug build walks slowly.
fn find(bytes: &[u8], secrets: &[Secret]) -> Vec<usize> {
    let mut begins = [false; 256];
    for first in secrets.iter().filter_map(|secret| secret.bytes.first()) {
        begins[usize::from(*first)] = true;
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if begins[usize::from(bytes[at])] {
            for (index, secret) in secrets.iter().enumerate() {
                if !found.contains(&index) && bytes[at..].starts_with(&secret.bytes) {
                    found.push(index);
                }
            }
        }
        at += 1;
    }
    found
}

/// The test that this thread runs. `None`: it is a thread of something that all tests share.
fn of_test() -> Option<String> {
    let thread = std::thread::current();
    thread.name().filter(|name| name.contains("::")).map(str::to_owned)
}

/// Look at what a disk is given.
pub(crate) fn look_at_rows(batch: &Batch) {
    for write in &batch.writes {
        look(&write.row, "the name of a row", false);
        look(write.value.as_deref().unwrap_or_default(), "a row of the disk", false);
    }
}

/// Look at every file under a directory.
pub(super) fn look_at_files(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            look_at_files(&path);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let name = entry.file_name().to_string_lossy().into_owned();
            look(&bytes, &format!("the file {name}"), false);
        }
    }
}

/// Log lines, as they are written.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = String::from_utf8_lossy(line);
        // The module that wrote it, which is after the level.
        let module = shown.split_whitespace().nth(2).unwrap_or_default();
        look(line, &format!("a log line of {module}"), false);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// A memory disk whose rows are looked at as they are written.
#[derive(Debug)]
pub(crate) struct Watched(pub(crate) Memory);

#[async_trait]
impl Backend for Watched {
    fn promises(&self) -> Promises {
        self.0.promises()
    }

    async fn get(&self, row: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.0.get(row).await
    }

    async fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, BackendError> {
        self.0.scan(prefix, after, limit).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), BackendError> {
        look_at_rows(&batch);
        self.0.commit(batch).await
    }

    async fn compact(&self) -> Result<(), BackendError> {
        self.0.compact().await
    }

    async fn size_bytes(&self) -> Result<Option<u64>, BackendError> {
        self.0.size_bytes().await
    }

    async fn close(&self) -> Result<(), BackendError> {
        self.0.close().await
    }
}
