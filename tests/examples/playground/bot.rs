//! An example as a process: its lines to the terminal, and its end.

use std::{process::ExitStatus, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Nothing here takes longer, unless it does not work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A bot that runs.
pub(crate) struct Bot {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Bot {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// With this on its standard input.
    pub(crate) async fn start_with(mut command: Command, input: &str) -> Result<Self> {
        command.stdin(Stdio::piped());
        let mut bot = Self::spawn(command)?;
        let mut stdin = bot.child.stdin.take().context("no stdin")?;
        stdin.write_all(input.as_bytes()).await?;
        Ok(bot)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self { child, lines })
    }

    /// Its next line.
    async fn line(&mut self) -> Result<Option<String>> {
        let line = timeout(PATIENCE, self.lines.next_line())
            .await
            .context("it says nothing")??;
        if let Some(line) = &line {
            println!("  bot: {line}");
        }
        Ok(line)
    }

    /// Watch until it says this: the whole line.
    pub(crate) async fn says(&mut self, wanted: &str) -> Result<String> {
        while let Some(line) = self.line().await? {
            if line.contains(wanted) {
                return Ok(line);
            }
        }
        bail!("the bot ended and did not say {wanted:?}")
    }

    /// As Ctrl-C does; it ends well.
    pub(crate) async fn stop(self) -> Result<()> {
        let pid = self.child.id().context("it does not run any more")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process has a number")?;
        kill_process(pid, Signal::INT)?;
        let status = self.end().await?;
        ensure!(status.success(), "stopped, it ended with {status}");
        Ok(())
    }

    /// It ends by itself.
    pub(crate) async fn end(mut self) -> Result<ExitStatus> {
        while self.line().await?.is_some() {}
        timeout(PATIENCE, self.child.wait())
            .await
            .context("it does not end")?
            .map_err(Into::into)
    }
}
