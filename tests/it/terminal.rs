//! A person before `mx`: a terminal of its own, what it shows, and what is typed.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use pty_process::{
    Size,
    blocking::{self, Pty},
};
use rustix::{
    process::{Pid, Signal, kill_process},
    termios::{LocalModes, tcgetattr},
};

use crate::{cli::Shell, world::watchdog::PATIENCE};

/// Between two looks at how the terminal is set.
const LOOK: Duration = Duration::from_millis(2);

/// What decides in the environment about colours, and what would answer instead of a person.
const DECIDES: [&str; 8] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "MX_LOG",
    "MX_PASSWORD",
    "MX_TOKEN",
    "NO_COLOR",
    "RUST_LOG",
];

/// Says which process it is, becomes the command, and stays a while longer than that.
const FROM_A_SHELL: &str =
    r#"sh -c 'echo "runs as $$"; exec "$0" "$@"' "$0" "$@"; echo "ended with $?"; read -r _wait"#;

/// A pseudo-terminal with a process on it, which ends with this.
pub(crate) struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    heard: mpsc::Receiver<Vec<u8>>,
    /// All that was shown.
    shown: Vec<u8>,
    /// So much of it was waited for.
    seen: usize,
}

impl Shell {
    /// `mx` as somebody starts it who sits at a terminal.
    pub(crate) fn typed(&self, profile: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(profile, arguments);
        for name in DECIDES {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        command
    }

    /// The same, begun.
    pub(crate) fn sit_at(&self, profile: &str, arguments: &[&str]) -> Terminal {
        Terminal::of(self.typed(profile, arguments))
    }
}

impl Terminal {
    pub(crate) fn of(command: Command) -> Self {
        Self::begin(command.into())
    }

    /// Begun from a shell that goes on after it: what it leaves of the terminal is seen.
    pub(crate) fn from_a_shell(command: &Command) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", FROM_A_SHELL]);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Self::of(shell)
    }

    /// All but the data is on the terminal: that is in a pipe.
    pub(crate) fn with_data_in_a_pipe(command: Command) -> Self {
        Self::begin(blocking::Command::from(command).stdout(Stdio::piped()))
    }

    /// All but what is said beside the data is on the terminal: that is in a pipe.
    pub(crate) fn with_words_in_a_pipe(command: Command) -> Self {
        Self::begin(blocking::Command::from(command).stderr(Stdio::piped()))
    }

    fn begin(command: blocking::Command) -> Self {
        let (pty, pts) = blocking::open().unwrap();
        pty.resize(Size::new(50, 200)).unwrap();
        let child = command.spawn(pts).unwrap();
        let pty = Arc::new(pty);
        let (say, heard) = mpsc::channel();
        let reading = Arc::clone(&pty);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Where nobody has it open any more, Linux calls that an error.
            while let Ok(length @ 1..) = (&*reading).read(&mut bytes) {
                if say.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            pty,
            child,
            heard,
            shown: Vec::new(),
            seen: 0,
        }
    }

    /// All that was shown so far.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Wait until these words are shown, after those that were waited for before. Returns what came with them.
    pub(crate) fn until(&mut self, words: &str) -> String {
        loop {
            let new = &self.shown[self.seen..];
            if let Some(at) = new.windows(words.len()).position(|window| window == words.as_bytes()) {
                let until = self.seen + at + words.len();
                let came = String::from_utf8_lossy(&self.shown[self.seen..until]).into_owned();
                self.seen = until;
                return came;
            }
            match self.heard.recv_timeout(PATIENCE) {
                Ok(more) => self.shown.extend(more),
                Err(_) => unreachable!("{words:?} is never shown: {:?}", self.shown()),
            }
        }
    }

    /// Type this, and Enter.
    pub(crate) fn says(&mut self, line: &str) {
        self.presses(&format!("{line}\r"));
    }

    /// Type this: `\u{3}` is Ctrl-C, `\u{4}` is Ctrl-D, which ends the input at the beginning of a line.
    pub(crate) fn presses(&mut self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown, and is read line by line.
    pub(crate) fn echoes(&self) -> bool {
        let settings = tcgetattr(&*self.pty).unwrap();
        settings
            .local_modes
            .contains(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Wait for this question, and until the answer would not be shown. Returns what came with it.
    pub(crate) fn asks_in_secret(&mut self, question: &str) -> String {
        let came = self.until(question);
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if !self.echoes() {
                return came;
            }
            std::thread::park_timeout(LOOK);
        }
        unreachable!("what is typed is shown: {:?}", self.shown());
    }

    /// End what was begun from a shell, as a service manager does.
    pub(crate) fn terminates(&mut self) {
        let number = self.shown().split_once("runs as ").and_then(|(_, rest)| {
            let (number, _) = rest.split_once('\r')?;
            number.parse().ok()
        });
        let process = Pid::from_raw(number.unwrap()).unwrap();
        kill_process(process, Signal::TERM).unwrap();
    }

    pub(crate) const fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Wait for the end. Returns the exit code, which is none after a signal, and all that was shown.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        loop {
            match self.heard.recv_timeout(PATIENCE) {
                Ok(more) => self.shown.extend(more),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => unreachable!("it does not end: {:?}", self.shown()),
            }
        }
        let code = self.child.wait().unwrap().code();
        (code, self.shown())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
