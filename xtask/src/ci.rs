//! `ci`: everything that has to be true, in one command.

use std::time::Instant;

use anyhow::Context as _;

use crate::{border, catalogue, crash, demo, deny, interop, package, process, tidy};

/// Everything that has to be true before a change lands: what CI runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Start with this step, after a failure that was mended.
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
}

type Step = (&'static str, fn() -> anyhow::Result<()>);

const STEPS: [Step; 15] = [
    ("fmt", || cargo(&["fmt", "--all", "--check"])),
    ("tidy", || tidy::run(&tidy::Options::default())),
    ("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ])
    }),
    ("bare", bare),
    ("engines", engines),
    ("catalogue", || {
        catalogue::check(&[
            "KQ", "KC", "KU", "TD", "MG", "SY", "SN", "LM", "SC", "CR", "NW", "K", "EX",
        ])
    }),
    ("deny", || deny::run(&deny::Options::default())),
    ("doc", doc),
    ("test", || cargo(&["test", "--workspace"])),
    // One test of the engine's suite is marked as ignored, because the engine's own SQLite store does not pass it.
    ("ignored", || {
        cargo(&["test", "--workspace", "--test", "engine", "--", "--ignored"])
    }),
    ("crash", crash::run_all),
    ("package", || package::run(&package::Options::default())),
    ("demo", || demo::run(&demo::Options::default())),
    ("synapse", || {
        demo::run(&demo::Options {
            synapse: true,
            ..demo::Options::default()
        })?;
        border::run(&border::Options::default())
    }),
    ("interop", || interop::run(&interop::Options::default())),
];

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let first = match &options.from {
        None => 0,
        Some(name) => STEPS
            .iter()
            .position(|(step, _)| step == name)
            .with_context(|| format!("there is no step {name:?}"))?,
    };
    let mut summary = Vec::new();
    let mut outcome = Ok(());
    for (name, step) in STEPS.iter().skip(first) {
        println!("\n== {name}");
        let started = Instant::now();
        outcome = step().with_context(|| format!("step {name} failed; go on with `cargo xtask ci --from {name}`"));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        summary.push(format!(
            "{name:<10} {word:<7} {:>6.1} s",
            started.elapsed().as_secs_f32()
        ));
        if outcome.is_err() {
            break;
        }
    }
    println!("\n{}", summary.join("\n"));
    outcome
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    process::run(process::cargo(&process::root()?).args(arguments))
}

/// The library of these packages alone, with these features and no others.
fn clippy_of(packages: &[&str], features: &str) -> anyhow::Result<()> {
    let mut arguments = vec!["clippy", "--lib", "--no-default-features", "--features", features];
    arguments.extend(packages.iter().flat_map(|package| ["-p", package]));
    arguments.extend(["--", "-D", "warnings"]);
    cargo(&arguments)
}

/// The two bottom crates without an engine and without an HTTP client, and the facade without either or with one of them.
fn bare() -> anyhow::Result<()> {
    clippy_of(&["mx-crypto-store", "mx-transport"], "")?;
    for features in ["", "reqwest", "sqlite"] {
        clippy_of(&["mx-e2ee"], features)?;
    }
    Ok(())
}

/// Each storage engine without the others.
fn engines() -> anyhow::Result<()> {
    for engine in ["sqlite", "redb", "sled"] {
        clippy_of(&["mx-crypto-store"], engine)?;
    }
    Ok(())
}

fn doc() -> anyhow::Result<()> {
    let root = process::root()?;
    let mut command = process::cargo(&root);
    command.env("RUSTDOCFLAGS", "-D warnings");
    process::run(command.args(["doc", "--workspace", "--no-deps", "--all-features"]))
}
