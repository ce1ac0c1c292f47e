//! Runs other programs from the workspace's root, and says which one failed.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The workspace's root: the directory above this crate's manifest.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").context("start this as `cargo xtask <task>`: cargo says where we are")?;
    let manifest = PathBuf::from(manifest);
    Ok(manifest
        .parent()
        .context("the crate xtask stands in no workspace")?
        .to_path_buf())
}

/// A `cargo` of this toolchain, in the workspace's root.
pub(crate) fn cargo(root: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    command
}

/// Runs a command to its end with our terminal.
///
/// # Errors
/// The command does not start, or it ends with another status than zero.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = describe(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// As [`run`]; its standard error is part of the message.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = describe(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!(
            "`{line}` ended with {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed something else than UTF-8"))
}

/// The command as a person would type it; only the program's name, not its path.
pub(crate) fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
