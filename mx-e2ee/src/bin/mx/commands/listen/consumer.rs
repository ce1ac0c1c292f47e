//! Who takes what arrives: a pipe, a command that is run for each event, a program that says when it is done.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::Result;
use mx_e2ee::{Client, Error, Event};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin},
    process::{Child, Command},
};

use super::{files, lines};
use crate::{
    cli::{Listen, Since},
    output::{Output, clean, escaped},
    profile::HELD,
};

/// The longest answer of a program that is read, in bytes.
const LONGEST_ANSWER: usize = 64;

/// What a command finds in its environment, and where it stands in the event.
const VARIABLES: [(&str, &str); 5] = [
    ("MX_EVENT_KIND", "kind"),
    ("MX_EVENT_ID", "event_id"),
    ("MX_EVENT_TYPE", "event_type"),
    ("MX_ROOM_ID", "room_id"),
    ("MX_SENDER", "sender"),
];

/// An event was not handled. It was not acknowledged, and comes again.
#[derive(Debug, thiserror::Error)]
#[error("{0}: the event comes again with the next mx listen")]
pub(crate) struct NotHandled(String);

impl NotHandled {
    /// It took longer than a listener that ends waits.
    pub(super) fn in_time() -> Self {
        Self("it was not handled within five seconds, and ended".to_owned())
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// It was given out, and not passed over.
    pub(super) counts: bool,
    /// Whoever takes the events went away before it said that it has this one.
    pub(super) is_gone: bool,
}

/// Who takes the events.
pub(super) struct Consumer<'a> {
    listen: &'a Listen,
    output: Output,
    profile: PathBuf,
    /// In milliseconds since the Unix epoch.
    since_ms: Option<u64>,
    answers: Option<Lines<BufReader<Stdin>>>,
    given: u64,
}

impl<'a> Consumer<'a> {
    pub(super) fn new(listen: &'a Listen, output: Output, profile: PathBuf) -> Result<Self> {
        if listen.ack && !output.is_json() {
            let what = "--ack is for programs: use it with --json, whose lines say what to answer".to_owned();
            return Err(Error::Configuration { what }.into());
        }
        let since_ms = listen.since.map(|Since(ms)| ms);
        let answers = listen.ack.then(|| BufReader::new(tokio::io::stdin()).lines());
        Ok(Self {
            listen,
            output,
            profile,
            since_ms,
            answers,
            given: 0,
        })
    }

    /// Give an event out. It may be acknowledged when this returned, unless the consumer is gone.
    pub(super) async fn take(&mut self, client: &Client, event: &Event) -> Result<Taken> {
        let mut json = json!(event);
        let sent_ms = json["origin_server_ts"].as_u64();
        if sent_ms.is_some_and(|sent| self.since_ms.is_some_and(|since| sent < since)) {
            return Ok(Taken {
                counts: false,
                is_gone: false,
            });
        }
        self.given += 1;
        if self.answers.is_some() {
            json["ack"] = self.given.into();
        }
        if let Some(command) = &self.listen.exec {
            // The command finds the file, and is not run again because that was not kept.
            files::save(client, event, self.listen, self.output).await?;
            handled_by(command, &json, &self.profile).await?;
        } else {
            self.output.show(&json, &clean(&lines::line(event)))?;
            files::save(client, event, self.listen, self.output).await?;
        }
        let is_gone = !self.is_acknowledged().await?;
        Ok(Taken { counts: true, is_gone })
    }

    /// Whether the program has said that it has the event: its number, as a line.
    async fn is_acknowledged(&mut self) -> Result<bool> {
        let Some(answers) = &mut self.answers else {
            return Ok(true);
        };
        let Some(answer) = answers.next_line().await? else {
            return Ok(false);
        };
        if answer.len() > LONGEST_ANSWER || answer.trim().parse() != Ok(self.given) {
            let wanted = self.given;
            return Err(NotHandled(format!("stdin does not say {wanted}, the number of the event")).into());
        }
        Ok(true)
    }
}

/// Run a command with the event on its stdin, and wait for it. Nothing of the event is part of what a shell reads.
async fn handled_by(command: &str, event: &Value, profile: &Path) -> Result<()> {
    let failed = |why: String| NotHandled(format!("{command:?} {why}"));
    let mut shell = if cfg!(windows) {
        let mut shell = Command::new("cmd");
        shell.arg("/C");
        shell
    } else {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c");
        shell
    };
    shell.arg(command).stdin(Stdio::piped()).env(HELD, profile);
    // Who ends mx from a terminal does not end what handles an event.
    #[cfg(unix)]
    shell.process_group(0);
    for (name, field) in VARIABLES {
        shell.env_remove(name);
        if let Some(value) = event[field].as_str().filter(|value| !value.contains('\0')) {
            shell.env(name, value);
        }
    }
    let mut child = shell
        .spawn()
        .map_err(|error| failed(format!("does not start: {error}")))?;
    let mut all = Group::of(&child);
    if let Some(mut stdin) = child.stdin.take() {
        let line = format!("{}\n", escaped(event));
        match stdin.write_all(line.as_bytes()).await {
            // It needs nothing of it, or not all.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let status = child.wait().await?;
    if status.success() {
        all.let_go();
        return Ok(());
    }
    Err(failed(format!("ended with {status}")).into())
}

/// The command and what it started, which end with this unless it has handled the event: one that comes again is not
/// handled beside itself.
struct Group(#[cfg(unix)] Option<rustix::process::Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        #[cfg(unix)]
        let group = Self(
            child
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(rustix::process::Pid::from_raw),
        );
        #[cfg(not(unix))]
        let group = {
            let _: &Child = child;
            Self()
        };
        group
    }

    /// What it left in the background goes on.
    fn let_go(&mut self) {
        #[cfg(unix)]
        {
            self.0 = None;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.0 {
            // One that has ended is none any more, unless it left something behind.
            let _ended = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// How a listener ends: at once while it waits, after what is being handled otherwise.
#[derive(Debug, Default)]
pub(super) struct Ending(AtomicU8);

const HANDLING: u8 = 1;
const ENDING: u8 = 2;

impl Ending {
    /// End. Whether an event is being handled.
    pub(super) fn begin(&self) -> bool {
        self.0.fetch_or(ENDING, Ordering::SeqCst) & HANDLING != 0
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.load(Ordering::SeqCst) & ENDING != 0
    }

    /// Until this has ended, an event is being handled.
    pub(super) async fn handling<T>(&self, handled: impl Future<Output = T>) -> T {
        self.0.fetch_or(HANDLING, Ordering::SeqCst);
        let done = handled.await;
        self.0.fetch_and(!HANDLING, Ordering::SeqCst);
        done
    }
}
