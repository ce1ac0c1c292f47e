//! `tidy`: the project's own rules about crates, manifests and files, each a pure function.

mod crates;
mod manifest;
mod source;
mod text;
mod top_level;

use std::{fmt, fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::process;

/// Check the house rules that no compiler checks; list every finding.
///
/// It reads what `git ls-files` lists (so `git add` a new file first), the top level and `cargo metadata`:
/// which crate may name which, what a published crate says about itself, versions in one place, length and
/// names of files, no panics outside tests, no paths of one machine, no other registry than crates.io.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {}

/// One broken rule in one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    /// A finding about a whole file, crate or directory entry.
    fn whole(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: 0,
            message: message.into(),
        }
    }

    /// A finding about one line; `index` counts from 0.
    fn at(path: &str, index: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: index + 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Prints all findings.
///
/// # Errors
/// There is a finding, or `git` or `cargo metadata` cannot be asked.
pub(crate) fn run(_: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let findings = findings(&root)?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("tidy: nothing found"),
        n => bail!("tidy: {n} finding(s)"),
    }
    Ok(())
}

fn findings(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let metadata = process::output(process::cargo(root).args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata = serde_json::from_str(&metadata).context("cargo metadata printed something else than JSON")?;
    let mut findings = crates::check(&metadata);
    findings.extend(top_level::check(&entries(root)?));
    let files = process::output(Command::new("git").args(["ls-files", "-z"]).current_dir(root))?;
    for path in files.split_terminator('\0') {
        // A deleted file is still listed, and bytes that are no text have no lines.
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue;
        };
        findings.extend(file(path, &text));
    }
    Ok(findings)
}

/// Every rule about one tracked file.
fn file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = text::check(path, text);
    if path.ends_with(".rs") {
        findings.extend(source::check(path, text));
    }
    if path.ends_with("/Cargo.toml") {
        findings.extend(manifest::check(path, text));
    }
    findings
}

fn entries(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).context("cannot list the top level")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
