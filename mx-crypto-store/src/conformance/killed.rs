//! The clause `survives_kill`: a process that writes is killed again and again, and loses nothing.
//!
//! In a test of yours, which has to be a plain `#[test]`:
//! ```no_run
//! # use std::path::PathBuf;
//! # use mx_crypto_store::{backend::{Backend, Sqlite}, conformance};
//! # type Opened = conformance::Opened;
//! // #[test]
//! fn my_engine_survives() {
//!     conformance::killed::survives("my_engine_survives", 200, |directory: PathBuf| async {
//!         Ok(Box::new(Sqlite::open(directory).await?) as Box<dyn Backend>)
//!     });
//! }
//! ```
//! The test starts itself again in a process of its own, which opens the store in a directory that it is given, looks
//! whether everything is there, commits batches of several rows, and acknowledges each on its standard output until it is
//! killed with `SIGKILL`, at a moment drawn by chance: while it commits, while it opens what the kill before has left, or
//! while it makes a new store.
//!
//! The environment variable `MX_KILL_ROUNDS` sets another number of rounds. The moments come from a seed, which is
//! printed, and which `MX_KILL_SEED` sets: it repeats the plan, and the machine adds its own chance.

mod child;

use std::{
    env, fmt, fs,
    future::Future,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use self::child::{DIRECTORY, MARK, Word};
use super::{Clause, Opened};

const CLAUSE: Clause = Clause("survives_kill");
/// One new store is killed while it is made in so many rounds.
const NEW_STORES: u32 = 10;
/// In which share of the rounds a second kill comes while the store is opened.
const SECOND_KILL: f64 = 0.3;
/// The latest moment of a kill: after the store was opened, and after the process was started.
const WRITING_MS: u64 = 25;
const OPENING_MS: u64 = 12;
/// No store takes longer to open, and no disk to commit.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was done to a store, and that it lost nothing: otherwise there is a panic instead.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// How often it was written and killed.
    pub rounds: u32,
    /// How many kills there were, those while opening among them.
    pub kills: u32,
    /// How many commits were acknowledged, and are there.
    pub acknowledged: u64,
    /// What the moments of the kills came from.
    pub seed: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            kills,
            acknowledged,
            seed,
        } = self;
        write!(
            f,
            "rounds {rounds}, kills {kills}, acknowledged commits {acknowledged}, lost 0 (seed {seed})"
        )
    }
}

/// Kill a process that writes, `rounds` times, and look after each whether every acknowledged commit is there, whole.
///
/// `test` is the name of the test that calls this, as the test runner prints it.
#[expect(clippy::print_stdout, reason = "what was done is part of the answer")]
pub fn survives<F: Future<Output = Opened>>(test: &str, rounds: u32, open: impl Fn(PathBuf) -> F) -> Summary {
    if let Some(directory) = env::var_os(DIRECTORY) {
        child::run(open(directory.into()));
    }
    let seed = variable("MX_KILL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = variable("MX_KILL_ROUNDS").unwrap_or(rounds);
    let directory = env::temp_dir().join(format!("mx-killed-{}-{seed:016x}", std::process::id()));
    let mut store = Store {
        test,
        seed,
        directory: directory.clone(),
        random: fastrand::Rng::with_seed(seed),
        acknowledged: 0,
        kills: 0,
    };
    let mut acknowledged = 0;
    for _ in 0..rounds / NEW_STORES {
        store.kill_while_opening();
        store.look();
        acknowledged += store.begin_anew();
    }
    for _ in 0..rounds {
        store.round();
    }
    store.look();
    let summary = Summary {
        rounds,
        kills: store.kills,
        acknowledged: acknowledged + store.acknowledged,
        seed,
    };
    println!("{test}: {summary}");
    // What is left of a store that was found broken stays, to be looked at.
    drop(fs::remove_dir_all(&directory));
    summary
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

struct Store<'a> {
    test: &'a str,
    seed: u64,
    directory: PathBuf,
    random: fastrand::Rng,
    /// The newest commit that was acknowledged or found.
    acknowledged: u64,
    kills: u32,
}

impl Store<'_> {
    /// Open, write, kill; and sometimes kill once more while the next process opens what is left.
    fn round(&mut self) {
        let process = self.start();
        self.opened(&process);
        let moment = Duration::from_micros(self.random.u64(0..WRITING_MS * 1000));
        thread::sleep(moment);
        self.kill(process);
        if self.random.f64() < SECOND_KILL {
            self.kill_while_opening();
        }
    }

    fn kill_while_opening(&mut self) {
        let process = self.start();
        let moment = Duration::from_micros(self.random.u64(0..OPENING_MS * 1000));
        thread::sleep(moment);
        self.kill(process);
    }

    /// Remove the store. How many commits were in it?
    fn begin_anew(&mut self) -> u64 {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            self.broken(format_args!("the store cannot be removed: {error}"));
        }
        std::mem::take(&mut self.acknowledged)
    }

    /// Open, and see what is there.
    fn look(&mut self) {
        let process = self.start();
        self.opened(&process);
        self.kill(process);
    }

    fn start(&self) -> Process {
        let started = env::current_exe().and_then(|program| {
            Command::new(program)
                .args([self.test, "--exact", "--nocapture", "--test-threads=1"])
                .env(DIRECTORY, &self.directory)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
        });
        let mut child = started.unwrap_or_else(|error| self.broken(format_args!("no process starts: {error}")));
        let (sender, words) = channel();
        let output = child.stdout.take();
        let reader = thread::spawn(move || {
            let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
            for line in lines.map_while(Result::ok) {
                // A test runner may have begun the line.
                if let Some((_, word)) = line.split_once(MARK) {
                    drop(sender.send(Word::parse(word)));
                }
            }
        });
        let reader = Some(reader);
        Process { child, words, reader }
    }

    /// Wait until a process says what it found.
    fn opened(&mut self, process: &Process) {
        match process.words.recv_timeout(PATIENCE) {
            Ok(word) => self.hear(word),
            Err(RecvTimeoutError::Timeout) => self.broken("the store was not open after two minutes"),
            Err(RecvTimeoutError::Disconnected) => self.broken(format_args!(
                "the process ended before the store was open; its last words are above, unless there is no test {:?}",
                self.test
            )),
        }
    }

    fn kill(&mut self, mut process: Process) {
        if let Err(error) = process.kill() {
            self.broken(format_args!("it cannot be killed: {error}"));
        }
        self.kills += 1;
        // Its end of the pipe is closed: what it said is here.
        drop(process.reader.take().map(thread::JoinHandle::join));
        for word in process.words.try_iter().collect::<Vec<_>>() {
            self.hear(word);
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            // The one that was under way is there, or is not.
            Word::Found(last) if last == self.acknowledged || last == self.acknowledged + 1 => self.acknowledged = last,
            Word::Done(last) if last == self.acknowledged + 1 => self.acknowledged = last,
            Word::Found(last) => self.broken(format_args!(
                "commit {} was acknowledged, and the newest that is there is {last}",
                self.acknowledged
            )),
            Word::Done(last) => self.broken(format_args!("commit {last} came after {}", self.acknowledged)),
            Word::Broken(what) => self.broken(what),
        }
    }

    fn broken(&self, what: impl fmt::Display) -> ! {
        CLAUSE.broken(format_args!(
            "{what} (after {} kills; MX_KILL_SEED={} repeats the plan; the store is {:?})",
            self.kills, self.seed, self.directory
        ))
    }
}

struct Process {
    child: Child,
    words: Receiver<Word>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Process {
    fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

/// A test that fails leaves nobody behind.
impl Drop for Process {
    fn drop(&mut self) {
        drop(self.kill());
    }
}
