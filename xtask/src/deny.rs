//! `deny`: advisories, licences and sources of everything that we depend on.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::process;

const VERSION: &str = "0.20.2";
/// The directory in which cargo-deny looks for a clone of RustSec's database: its name ends with a hash of the URL.
const DATABASE: &str = "advisory-db-3157b0e258782691";

/// Check the dependency tree against RustSec's advisories, and its licences and sources.
///
/// Installs cargo-deny where it is missing. The advisories come over the net; on a machine without, from the copy that
/// MX_ADVISORY_DB names, or from `../shared/advisory-db` beside the checkout.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    if process::output(process::cargo(&root).args(["deny", "--version"])).is_err() {
        println!("installing cargo-deny {VERSION}");
        process::run(process::cargo(&root).args([
            "install",
            "--locked",
            "--quiet",
            "cargo-deny",
            "--version",
            VERSION,
        ]))?;
    }
    let mut command = process::cargo(&root);
    command.args(["deny", "--all-features", "--config", ".cargo/deny.toml"]);
    if let Some(copy) = local_copy(&root) {
        prepare(&copy, &root.join("target").join("advisory-dbs").join(DATABASE))?;
        // Offline is the only way to leave the advisories unfetched: the crates of every platform come first.
        process::run(process::cargo(&root).args(["fetch", "--quiet", "--locked"]))?;
        command.arg("--offline");
    }
    process::run(command.args([
        "check",
        "--hide-inclusion-graph",
        "advisories",
        "bans",
        "licenses",
        "sources",
    ]))
}

fn local_copy(root: &Path) -> Option<PathBuf> {
    let named = env::var_os("MX_ADVISORY_DB").map(PathBuf::from);
    let beside = root.parent().map(|parent| parent.join("shared").join("advisory-db"));
    named.or(beside).filter(|path| path.join("crates").is_dir())
}

/// cargo-deny reads a git clone and nothing else: make one of a plain copy.
fn prepare(copy: &Path, clone: &Path) -> anyhow::Result<()> {
    if clone.exists() {
        fs::remove_dir_all(clone).context("cannot replace the old copy of the advisories")?;
    }
    copy_all(copy, clone)?;
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args([
            "-c",
            "user.name=xtask",
            "-c",
            "user.email=xtask@localhost",
            "-c",
            "commit.gpgsign=false",
        ]);
        process::output(git.args(arguments).current_dir(clone)).map(drop)
    };
    git(&["init", "--quiet", "--initial-branch=main"])?;
    git(&["add", "--all", "--force"])?;
    git(&["commit", "--quiet", "--message", "a copy"])?;
    git(&["remote", "add", "origin", "https://github.com/RustSec/advisory-db"])?;
    // cargo-deny asks when the clone was fetched last.
    fs::write(clone.join(".git").join("FETCH_HEAD"), git_head(clone)?).context("cannot write FETCH_HEAD")
}

fn git_head(clone: &Path) -> anyhow::Result<String> {
    let head = process::output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(clone))?;
    Ok(format!(
        "{}\t\tbranch 'main' of https://github.com/RustSec/advisory-db\n",
        head.trim()
    ))
}

fn copy_all(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if entry.file_name() != ".git" {
                copy_all(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot copy to {}", target.display()))?;
        }
    }
    Ok(())
}
