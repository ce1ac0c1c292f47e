//! A peer in a process of its own: commands to it, its answers, and the ledger of what it read.

mod ledger;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
    task::JoinHandle,
};

pub(crate) use self::ledger::Ledger;
use crate::{inexcusable::Inexcusable, plan::Driver};

/// Longer than anything that a peer is asked for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whose implementation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Ours,
    Nio,
    Js,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "mx-e2ee",
            Self::Nio => "matrix-nio",
            Self::Js => "matrix-js-sdk",
        })
    }
}

/// How a peer is started.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// This program, as a device.
    Ours,
    Driven(Kind, Driver),
}

impl Program {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Ours => Kind::Ours,
            Self::Driven(kind, _) => *kind,
        }
    }

    fn command(&self) -> Result<Command> {
        Ok(match self {
            Self::Ours => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("--device");
                command
            }
            Self::Driven(_, driver) => {
                let mut command = Command::new(&driver.program);
                command.arg(&driver.script);
                command
            }
        })
    }
}

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// A device of a user, in a process.
#[derive(Debug)]
pub(crate) struct Peer {
    program: Program,
    /// Its homeserver's address, which may be a proxy's.
    url: String,
    pub(crate) directory: PathBuf,
    pub(crate) user: String,
    pub(crate) device: String,
    /// Of its login.
    token: String,
    pub(crate) ledger: Ledger,
    process: Option<Process>,
    answers: Answers,
    /// A number for each command.
    commands: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: tokio::sync::Mutex<ChildStdin>,
    reader: JoinHandle<()>,
}

impl Peer {
    /// Log a user in, as a new device.
    pub(crate) async fn login(
        program: Program,
        url: &str,
        user: &str,
        password: &str,
        directory: PathBuf,
    ) -> Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut peer = Self {
            program,
            url: url.to_owned(),
            directory,
            user: String::new(),
            device: String::new(),
            token: String::new(),
            ledger: Ledger::default(),
            process: None,
            answers: Arc::default(),
            commands: std::sync::atomic::AtomicU64::new(1),
        };
        peer.start()?;
        let command =
            json!({"do": "login", "url": url, "user": user, "password": password, "directory": peer.directory});
        let who = peer.ask(command).await?;
        let text = |name: &str| {
            who[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {name}"))
        };
        (peer.user, peer.device, peer.token) = (text("user")?, text("device")?, text("token")?);
        Ok(peer)
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.program.kind()
    }

    /// An access token of its login, for what needs no encryption. Ours renews its own, and is asked while it runs.
    pub(crate) async fn token(&self) -> String {
        let renewed = match self.kind() {
            Kind::Ours if self.process.is_some() => self.ask(json!({"do": "token"})).await.ok(),
            _ => None,
        };
        let renewed = renewed.as_ref().and_then(|answer| answer["token"].as_str());
        renewed.unwrap_or(&self.token).to_owned()
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(|process| process.child.id())
    }

    fn start(&mut self) -> Result<()> {
        let mut child = self
            .program
            .command()?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.kind()))?;
        let stdin = tokio::sync::Mutex::new(child.stdin.take().context("no stdin")?);
        let stdout = child.stdout.take().context("no stdout")?;
        let reader = tokio::spawn(read(stdout, Arc::clone(&self.answers), self.ledger.clone()));
        self.process = Some(Process { child, stdin, reader });
        Ok(())
    }

    /// Let it do something.
    pub(crate) async fn ask(&self, mut command: Value) -> Result<Value> {
        let process = self.process.as_ref().context("it does not run")?;
        let number = self.commands.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        command["id"] = number.into();
        let (sender, receiver) = oneshot::channel();
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, sender);
        let line = format!("{command}\n");
        process.stdin.lock().await.write_all(line.as_bytes()).await?;
        let what = || format!("{} {} of {}", self.kind(), command["do"], self.user);
        let answer = tokio::time::timeout(PATIENCE, receiver).await;
        let answer = answer
            .with_context(what)?
            .ok()
            .with_context(|| format!("{}: the process ended", what()))?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{}: {error}", what());
        }
        Ok(answer["ok"].clone())
    }

    /// Send a text. Returns the event's id.
    pub(crate) async fn say(&self, room: &str, body: &str) -> Result<String> {
        self.send(room, "m.room.message", json!({"msgtype": "m.text", "body": body}))
            .await
    }

    pub(crate) async fn send(&self, room: &str, event_type: &str, content: Value) -> Result<String> {
        let command = json!({"do": "send", "room": room, "type": event_type, "content": content});
        event(&self.ask(command).await?)
    }

    /// Wait until it has read an event, and return it.
    pub(crate) async fn reads(&self, event: &str) -> Result<Value> {
        let found = self.ledger.read(event).await;
        found.with_context(|| match self.ledger.unreadable(event) {
            Some(why) => format!("{} cannot read {event}: {}", self.name(), why["reason"]),
            None => format!("{} was never shown {event}", self.name()),
        })
    }

    /// It has not read an event whose key it must not have.
    pub(crate) fn has_not_read(&self, event: &str) -> Result<()> {
        if self.ledger.readings(event).is_empty() {
            return Ok(());
        }
        Err(Inexcusable(format!("{} read {event} without a key", self.name())).into())
    }

    pub(crate) fn name(&self) -> String {
        format!("{} {} {}", self.kind(), self.user, self.device)
    }

    /// After its login ended: the same device once more.
    pub(crate) async fn log_in_again(&mut self, user: &str, password: &str) -> Result<()> {
        self.start()?;
        let command =
            json!({"do": "login", "url": self.url, "user": user, "password": password, "directory": self.directory});
        let who = self.ask(command).await?;
        ensure!(
            who["device"] == self.device.as_str(),
            "it is another device: {}",
            who["device"]
        );
        self.token = who["token"].as_str().context("no token")?.to_owned();
        Ok(())
    }

    pub(crate) async fn close(&mut self) -> Result<()> {
        self.ask(json!({"do": "close"})).await?;
        let Some(Process {
            mut child,
            stdin,
            reader,
        }) = self.process.take()
        else {
            return Ok(());
        };
        drop(stdin);
        ensure!(child.wait().await?.success(), "{} did not end well", self.name());
        Ok(reader.await?)
    }

    pub(crate) async fn open(&mut self) -> Result<()> {
        self.start()?;
        let command = json!({"do": "open", "url": self.url, "directory": self.directory});
        self.ask(command).await.map(drop)
    }

    /// SIGKILL, while it is asked for things; [`kill`](Self::kill) takes away what is left.
    pub(crate) fn sigkill(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid().context("it does not run")?)?);
        rustix::process::kill_process(pid.context("no process")?, rustix::process::Signal::KILL)?;
        Ok(())
    }

    /// SIGKILL: nothing is closed, nothing is flushed.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(Process { mut child, reader, .. }) = self.process.take() {
            child.kill().await?;
            reader.await?;
        }
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }
}

/// The id of the event that an answer is about.
pub(crate) fn event(answer: &Value) -> Result<String> {
    answer["event"].as_str().map(str::to_owned).context("no event id")
}

/// Sort what a process says into answers and events, until it ends.
async fn read(stdout: ChildStdout, answers: Answers, ledger: Ledger) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // A line that a killed process did not end is nothing.
        let Ok(line) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if let Some(number) = line["answer"].as_u64() {
            let waiting = answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            if let Some(waiting) = waiting {
                let _nobody_waits = waiting.send(line);
            }
        } else {
            ledger.note(line);
        }
    }
    // Nobody will answer any more.
    answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
