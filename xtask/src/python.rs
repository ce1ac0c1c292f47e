//! Virtual environments: what is installed for a task stands under `target/`, and nowhere else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::process;

/// Make a virtual environment with these packages, in the words of pip, unless it is there. Returns its Python.
///
/// # Errors
/// There is no python3 with its venv module, or pip fails twice.
pub(crate) fn environment(directory: &Path, what: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let python = directory.join("bin").join("python");
    // A marker says that it is complete, and with what.
    let marker = directory.join("complete");
    let wanted = packages.join("\n");
    if fs::read_to_string(&marker).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    println!("installing {what} into {}", directory.display());
    process::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory)).context(
        "python3 cannot make a virtual environment: install python3 and its venv (Debian: apt install python3-venv)",
    )?;
    let pip = || {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        process::output(command.args(packages))
    };
    // Once more: an index that is busy for a moment is the usual reason.
    if pip().is_err() {
        pip()?;
    }
    fs::write(marker, wanted)?;
    Ok(python)
}
