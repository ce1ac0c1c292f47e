//! The process that is killed: it opens, looks whether everything is there, and commits until it dies.

use std::{
    future::Future,
    io::{Write, stdout},
    process::exit,
};

use super::Opened;
use crate::backend::{Backend, Batch};

/// The environment variable that makes a process this one.
pub(super) const DIRECTORY: &str = "MX_KILL_DIRECTORY";
/// What our lines have, and those of a test runner do not.
pub(super) const MARK: &str = "mx-killed: ";
/// How many batches stay; older ones are removed by the commit of a newer one.
const WINDOW: u64 = 32;
/// Somebody is to kill it long before.
const MOST: u64 = 100_000;

/// What it says.
pub(super) enum Word {
    /// Everything is there up to this commit, and nothing else.
    Found(u64),
    /// This commit returned `Ok`.
    Done(u64),
    /// It is not so.
    Broken(String),
}

impl Word {
    pub(super) fn parse(word: &str) -> Self {
        let number = |text: &str| text.parse().ok();
        let (kind, rest) = word.split_once(' ').unwrap_or((word, ""));
        match (kind, number(rest)) {
            ("found", Some(last)) => Self::Found(last),
            ("done", Some(last)) => Self::Done(last),
            _ => Self::Broken(rest.to_owned()),
        }
    }
}

/// Never returns: a process that is not killed ends with an error.
pub(super) fn run(open: impl Future<Output = Opened>) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(write(open)),
        Err(error) => Err(format!("there is no runtime: {error}")),
    };
    if let Err(what) = result {
        say(format_args!("broken {what}"));
    }
    exit(1)
}

async fn write(open: impl Future<Output = Opened>) -> Result<(), String> {
    let backend = open.await.map_err(|error| format!("it does not open: {error:?}"))?;
    let last = check(&*backend).await?;
    say(format_args!("found {last}"));
    for number in last + 1..last + MOST {
        let result = backend.commit(batch(number)).await;
        result.map_err(|error| format!("commit {number} failed: {error:?}"))?;
        say(format_args!("done {number}"));
    }
    Err("nobody killed it".to_owned())
}

fn say(word: std::fmt::Arguments<'_>) {
    // Nobody listens any more: there is nobody to be killed by either.
    let mut out = stdout().lock();
    if writeln!(out, "{MARK}{word}").and_then(|()| out.flush()).is_err() {
        exit(1);
    }
}

/// The rows that commit `number` writes for itself: one to seven, up to 3 KB, and now and then a large one.
fn rows(number: u64) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(number);
    (0..random.u8(1..=7)).map(move |row| {
        let large = number.is_multiple_of(16) && row == 0;
        let mut value = vec![0; if large { 64 << 10 } else { random.usize(0..3000) }];
        random.fill(&mut value);
        (format!("kill/batch/{number:020}/{row}").into_bytes(), value)
    })
}

/// Rows of its own, three that every commit overwrites, the removal of old ones, and that it follows the one before.
fn batch(number: u64) -> Batch {
    let before = (number > 1).then(|| (number - 1).to_be_bytes().to_vec());
    let mut batch = Batch::new().expect("kill/last", before);
    for (row, value) in rows(number) {
        batch = batch.put(row, value);
    }
    for (row, _) in number.checked_sub(WINDOW).into_iter().flat_map(rows) {
        batch = batch.delete(row);
    }
    for hot in ["kill/hot/a", "kill/hot/b", "kill/hot/c", "kill/last"] {
        batch = batch.put(hot, number.to_be_bytes());
    }
    batch
}

/// The newest commit that is there, if it and those before it are whole and nothing else is there.
async fn check(backend: &dyn Backend) -> Result<u64, String> {
    let failed = |error| format!("it cannot be read: {error:?}");
    let last = backend.get(b"kill/last").await.map_err(failed)?;
    let last = match last.map(<[u8; 8]>::try_from) {
        None => 0,
        Some(Ok(bytes)) => u64::from_be_bytes(bytes),
        Some(Err(_)) => return Err("a value came back changed".to_owned()),
    };
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    loop {
        let after = found.last().map(|(row, _)| row.clone());
        let page = backend.scan(b"kill/", after.as_deref(), 50).await.map_err(failed)?;
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let kept = last.saturating_sub(WINDOW) + 1..=last;
    let hot = ["kill/hot/a", "kill/hot/b", "kill/hot/c", "kill/last"];
    let hot = hot.map(|row| (row.as_bytes().to_vec(), last.to_be_bytes().to_vec()));
    let expected = kept.flat_map(rows).chain(hot.into_iter().filter(|_| last > 0));
    let mut found = found.into_iter();
    for (row, value) in expected {
        let name = String::from_utf8_lossy(&row).into_owned();
        match found.next() {
            Some((other, _)) if other != row => return Err(format!("of commit {last}: not {name}")),
            Some((_, other)) if other != value => return Err(format!("of commit {last}: {name} has another value")),
            Some(_) => {}
            None => return Err(format!("of commit {last}: {name} is missing")),
        }
    }
    match found.next() {
        Some((row, _)) => Err(format!(
            "after commit {last} there is {}",
            String::from_utf8_lossy(&row)
        )),
        None => Ok(last),
    }
}
