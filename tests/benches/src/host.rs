//! What the figures were measured on.

use std::{fs, path::Path, process::Command, thread};

/// One line: cores, memory, kernel, file system, compiler.
pub(crate) fn describe(directory: &Path) -> String {
    let cores = thread::available_parallelism().map_or_else(|_| "?".to_owned(), |cores| cores.to_string());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = said(Command::new("rustc").arg("--version"));
    let file_system = said(
        Command::new("stat")
            .args(["--file-system", "--format=%T"])
            .arg(directory),
    );
    format!(
        "{cores} cores ({}), {} of memory, Linux {}, {file_system}, {rustc}",
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        kernel.trim(),
    )
}

/// The value of the first line of `name: value` in a file of the kernel.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(field, _)| field.trim() == name);
    found.map_or_else(|| "?".to_owned(), |(_, value)| value.trim().to_owned())
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&output).trim() {
        "" => "?".to_owned(),
        line => line.to_owned(),
    }
}
