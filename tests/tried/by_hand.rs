//! The README's commands by hand, as they stand there, against the homeserver to play with.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::built;

const README: &str = include_str!("../../README.md");

/// The homeserver to play with; it ends with this.
struct Playing(Child);

impl Drop for Playing {
    fn drop(&mut self) {
        let _gone_anyway = self.0.kill();
        let _gone_anyway = self.0.wait();
    }
}

/// What a person types in the second terminal, but for the installation. A listener ends only when it is stopped: here, after
/// what is there.
fn script(homeserver: &str) -> Result<String> {
    let mut blocks = README
        .split("```")
        .filter(|block| block.contains("mx --profile alice login"));
    let block = blocks.next().context("there is a block with the commands")?;
    let lines = block.lines().skip(1).filter(|line| !line.starts_with("cargo install"));
    let script: Vec<String> = lines
        .map(|line| {
            line.replace("http://127.0.0.1:8008", homeserver)
                .replace("listen --save received", "listen --save received --once")
        })
        .collect();
    Ok(script.join("\n"))
}

#[test]
fn what_the_readme_types_works() -> Result<()> {
    let here = tempfile::tempdir()?;
    std::fs::write(here.path().join("README.md"), README)?;
    let mut command = Command::new(built("playground")?);
    let mut playing = Playing(command.arg("homeserver").stdout(Stdio::piped()).spawn()?);
    // Held to the end: whoever prints to a pipe that nobody holds is killed.
    let mut lines = BufReader::new(playing.0.stdout.take().context("no stdout")?);
    let mut address = String::new();
    lines.read_line(&mut address)?;
    let script = script(address.trim_end())?;
    assert_eq!(script.matches("mx --profile").count(), 7, "{script}");
    assert_eq!(script.matches(address.trim_end()).count(), 1, "{script}");
    assert_eq!(script.matches("--once").count(), 1, "{script}");
    let mx = built("../mx")?;
    let path = format!(
        "{}:{}",
        mx.parent().context("mx is in a directory")?.display(),
        std::env::var("PATH")?
    );
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).current_dir(here.path()).env("PATH", path);
    shell
        .env("HOME", here.path())
        .env("XDG_DATA_HOME", here.path().join("data"));
    let output = shell.output()?;
    let told = String::from_utf8(output.stdout)?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{told}{words}");
    drop(lines);
    assert!(
        told.contains("the eagle lands at noon") && told.contains("and a file"),
        "{told}"
    );
    assert_eq!(
        std::fs::read_to_string(here.path().join("received/README.md"))?,
        README,
        "the file came: {told}"
    );
    Ok(())
}
