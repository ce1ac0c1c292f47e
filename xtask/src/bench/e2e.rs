//! `bench e2e`: ours against matrix-sdk on the same Synapse, and what it takes to build them.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Instant};

use crate::{process, synapse};

/// Both contenders: how they are called in the workspace of the benches.
const CRATES: [&str; 2] = ["mx-e2ee", "matrix-sdk"];

/// How the whole stack is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Few messages and no optimisation: to look whether it works, not to write it down.
    #[arg(long)]
    quick: bool,
    /// Also build each of them from nothing, in release: many minutes.
    #[arg(long)]
    build: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let manifest = root.join("tests/benches/Cargo.toml");
    let target = root.join("target/bench");
    let server = synapse::start(&synapse::Options::open())?;
    let mut command = process::cargo(&root);
    command.args(["run", "--locked", "--package", "mx-bench-e2e"]);
    command.args((!options.quick).then_some("--release"));
    command
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target);
    command.args(["--", "--homeserver", &server.url]);
    process::run(command.args(options.quick.then_some("--quick")))?;
    drop(server);
    let [ours, theirs] = CRATES.map(|name| crates(&root, &manifest, name));
    println!("| crates in the tree | {} | {} | |", ours?, theirs?);
    if options.build {
        let [ours, theirs] = CRATES.map(|name| build(&root, &manifest, name));
        println!("| clean release build, s | {:.0} | {:.0} | |", ours?, theirs?);
    }
    Ok(())
}

fn benches(root: &Path, manifest: &Path, verb: &str, name: &str) -> Command {
    let mut command = process::cargo(root);
    command.args([verb, "--locked", "--manifest-path"]).arg(manifest);
    command.args(["--package", name]);
    command
}

/// How many crates one of them is made of, itself included.
fn crates(root: &Path, manifest: &Path, name: &str) -> anyhow::Result<usize> {
    let mut command = benches(root, manifest, "tree", name);
    let text = process::output(command.args(["--edges", "normal", "--prefix", "none", "--no-dedupe"]))?;
    let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split(" (").next()).collect();
    Ok(names.len())
}

/// How many seconds it takes to build it with everything that it needs.
fn build(root: &Path, manifest: &Path, name: &str) -> anyhow::Result<f32> {
    let target = root.join("target").join(format!("bench-build-{name}"));
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    let mut command = benches(root, manifest, "build", name);
    command.args(["--release", "--lib", "--target-dir"]).arg(&target);
    let started = Instant::now();
    process::run(&mut command)?;
    let seconds = started.elapsed().as_secs_f32();
    fs::remove_dir_all(&target)?;
    Ok(seconds)
}
