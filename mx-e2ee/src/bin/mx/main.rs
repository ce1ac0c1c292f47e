//! `mx`: end-to-end encrypted Matrix for a shell. Parse, run, exit code.

mod cli;
mod commands;
mod output;
mod profile;
mod signals;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use clap::Parser;

use self::{cli::Cli, output::Output};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.verbose);
    let output = Output::new(cli.json);
    // This thread and one more. tokio waits for ever for its first thread when it cannot have its second.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return output.failure(&error.into()),
    };
    let ended = match runtime.block_on(commands::run(cli, &output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.failure(&error),
    };
    // A thread that waits for a password or a slow disk does not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Warnings by default, on stderr; `MX_LOG` chooses more, in the syntax of the crate tracing-subscriber.
fn start_log(verbose: u8) {
    let default = match verbose {
        0 => "error,mx_e2ee=warn,mx_olm_orchestrator=warn,mx_transport=warn,mx_crypto_store=warn",
        1 => "warn,mx_e2ee=info,mx_olm_orchestrator=info,mx_transport=info,mx_crypto_store=info",
        _ => "info,mx_e2ee=debug,mx_olm_orchestrator=debug,mx_transport=debug,mx_crypto_store=debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("MX_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_coloured())
        .with_target(false)
        .init();
}

/// Colours are for a terminal, and for nobody who says `NO_COLOR` (no-color.org).
fn is_coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !refused
}
