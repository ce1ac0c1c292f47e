//! I13: no test hangs, and none eats the memory. A thread looks once a second, and ends the process with the test's name.
//!
//! This is the one place where the tests look at the wall clock: it never decides what a test finds, only that it does
//! not go on for ever.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

/// What a test may take unless it says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The most that the process may hold in memory, in bytes. `MX_MEMORY_MIB` allows more, for a world that is larger.
const MEMORY: u64 = 512 * MIB;
const MIB: u64 = 1024 * 1024;

fn memory() -> u64 {
    let allowed = std::env::var("MX_MEMORY_MIB").ok();
    allowed.map_or(MEMORY, |mib| mib.parse::<u64>().unwrap() * MIB)
}

struct Running {
    test: String,
    until: Instant,
    memory: u64,
}

static RUNNING: Mutex<BTreeMap<usize, Running>> = Mutex::new(BTreeMap::new());

/// While this lives, the watchdog looks.
#[derive(Debug)]
pub(super) struct Watch(usize);

impl Watch {
    pub(super) fn new(id: usize, patience: Duration) -> Self {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| {
            std::thread::Builder::new()
                .name("watchdog".to_owned())
                .spawn(look)
                .unwrap();
        });
        let running = Running {
            test: test_name(),
            until: Instant::now() + patience,
            memory: memory(),
        };
        RUNNING
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, running);
        Self(id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn look() {
    loop {
        std::thread::park_timeout(Duration::from_secs(1));
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let resident = resident_bytes();
        for test in running.values() {
            if Instant::now() > test.until {
                end(&format!("{} hangs", test.test));
            }
            if resident > test.memory {
                end(&format!("{} holds {resident} bytes of memory", test.test));
            }
        }
    }
}

fn end(words: &str) {
    // Not captured by the test harness: nobody else will tell.
    let _written = writeln!(std::io::stderr(), "watchdog: {words}: the process is ended");
    std::process::abort();
}

/// The test that this thread runs: libtest names its threads, and a runner of one test a process names it as an argument.
pub(crate) fn test_name() -> String {
    let thread = std::thread::current();
    match thread.name() {
        Some(name) if name != "main" && !name.starts_with("tokio") => name.to_owned(),
        _ => std::env::args()
            .skip_while(|argument| argument != "--exact")
            .nth(1)
            .unwrap_or_else(|| "a test".to_owned()),
    }
}

/// What the process holds in memory, in bytes; nothing where the system does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
