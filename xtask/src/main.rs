//! `cargo xtask`: the project's tasks, the same on a laptop and in CI.
#![expect(clippy::print_stdout, reason = "a task talks to people")]

mod bench;
mod border;
mod catalogue;
mod ci;
mod crash;
mod demo;
mod deny;
mod example;
mod homeserver;
mod interop;
mod package;
mod process;
mod python;
mod replay;
mod soak;
mod synapse;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's tasks. CI runs `cargo xtask ci` and nothing else, so what passes here passes there.
///
/// Before a commit: `cargo xtask tidy`. Before a push: `cargo xtask ci`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Bench(bench::Options),
    Border(border::Options),
    Catalogue(catalogue::Options),
    Ci(ci::Options),
    Crash(crash::Options),
    Demo(demo::Options),
    Deny(deny::Options),
    Example(example::Options),
    Homeserver(homeserver::Options),
    Interop(interop::Options),
    Package(package::Options),
    Replay(replay::Options),
    Soak(soak::Options),
    Synapse(synapse::Options),
    Tidy(tidy::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bench(options) => bench::run(&options),
        Task::Border(options) => border::run(&options),
        Task::Catalogue(options) => catalogue::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::Crash(options) => crash::run(&options),
        Task::Demo(options) => demo::run(&options),
        Task::Deny(options) => deny::run(&options),
        Task::Example(options) => example::run(&options),
        Task::Homeserver(options) => homeserver::run(&options),
        Task::Interop(options) => interop::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Replay(options) => replay::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Synapse(options) => synapse::run(&options),
        Task::Tidy(options) => tidy::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
