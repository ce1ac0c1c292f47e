//! Memory, measured in a process that does nothing else: whatever other tests took is not in it.

use std::process::Command;

/// Set in the process that a test starts of itself.
const CHILD: &str = "MX_WIRE_CHILD_MEASURES";

/// Run a test of this binary alone, in a process of its own. `true`: this is that process, and it does the work.
pub(crate) async fn is_alone(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "");
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let (said, why) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(ended.status.success(), "{said}{why}");
    assert!(said.contains("1 passed"), "there is no test {test}: {said}");
    false
}

/// The most memory that this process has had since a moment.
pub(crate) struct Growth {
    before: usize,
}

impl Growth {
    /// From now on. `None`: this system does not say.
    pub(crate) fn begin() -> Option<Self> {
        // 5: the most memory that there was is forgotten (proc(5)).
        std::fs::write("/proc/self/clear_refs", "5").ok()?;
        Some(Self { before: kib("VmRSS:")? })
    }

    /// In bytes.
    pub(crate) fn bytes(&self) -> usize {
        kib("VmHWM:").unwrap().saturating_sub(self.before) * 1024
    }
}

fn kib(name: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
