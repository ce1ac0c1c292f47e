//! The story's side of a device's process: commands to it, its lines to the terminal, its answers back.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// An answer begins with this; every other line is for people.
pub(crate) const ANSWER: char = '\u{1}';

/// A device in a process of its own, and the directory that outlives it.
pub(crate) struct Device {
    name: &'static str,
    directory: tempfile::TempDir,
    running: Running,
}

struct Running {
    child: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Device {
    pub(crate) async fn start(name: &'static str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let running = Running::start(name, &directory)?;
        Ok(Self {
            name,
            directory,
            running,
        })
    }

    /// SIGKILL: nothing is closed, nothing is flushed.
    pub(crate) async fn kill_and_start(&mut self) -> Result<()> {
        self.running.child.kill().await?;
        self.running = Running::start(self.name, &self.directory)?;
        Ok(())
    }

    /// Let the device do something, show what it says, and return its answer.
    pub(crate) async fn ask(&mut self, command: Value) -> Result<Value> {
        self.running
            .commands
            .write_all(format!("{command}\n").as_bytes())
            .await?;
        while let Some(line) = self.running.lines.next_line().await? {
            match line.strip_prefix(ANSWER) {
                None => println!("   {:<6} {line}", self.name),
                Some(answer) => {
                    let answer: Value = serde_json::from_str(answer)?;
                    if let Some(error) = answer["error"].as_str() {
                        bail!("{}: {error}", self.name);
                    }
                    return Ok(answer);
                }
            }
        }
        bail!("the process of {} ended", self.name)
    }
}

impl Running {
    fn start(name: &str, directory: &tempfile::TempDir) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--device", name])
            .env("MX_DEMO_DIRECTORY", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let commands = child.stdin.take().context("no stdin")?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self { child, commands, lines })
    }
}
