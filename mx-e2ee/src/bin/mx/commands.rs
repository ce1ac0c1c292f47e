//! One file a subcommand.

mod appservice;
mod backup;
mod device;
pub(crate) mod doctor;
mod download;
mod identity;
mod import;
mod keys;
mod listen;
mod login;
pub(crate) mod manifest;
mod manual;
mod person;
mod progress;
mod room;
mod say;
mod secret;
mod send;
mod store;
mod undecryptable;
mod verify;

use anyhow::Result;
pub(crate) use listen::NotHandled;
use mx_e2ee::{Error, Session};
pub(crate) use secret::first_line;
use serde_json::json;
pub(crate) use verify::NotVerified;

use crate::{
    cli::{Cli, Command, UndecryptableCommand},
    output::Output,
    profile, signals,
};

/// Run what was typed. Signals let it finish for a while; a listener, which never is, ends with the event that it shows.
pub(crate) async fn run(cli: Cli, output: &Output) -> Result<()> {
    match &cli.command {
        Command::Verify(command) => verify::run(&cli, command, *output).await,
        Command::Listen(listen) if !listen.once => listen::run(&cli, listen, *output).await,
        _ => signals::finishing(output, Box::pin(dispatch(&cli, output))).await,
    }
}

async fn dispatch(cli: &Cli, output: &Output) -> Result<()> {
    match &cli.command {
        Command::Login(login) => login::login(cli, login, *output).await,
        Command::Logout(logout) => login::logout(cli, logout, *output).await,
        Command::Whoami => whoami(cli, *output),
        Command::Room(room) => room::run(cli, room, *output).await,
        Command::Send(send) => send::run(cli, send, *output).await,
        Command::React(react) => say::react(cli, react, *output).await,
        Command::Redact(redact) => say::redact(cli, redact, *output).await,
        Command::Listen(listen) => listen::run(cli, listen, *output).await,
        Command::Download(download) => download::run(cli, download, *output).await,
        Command::Doctor(options) => doctor::run(cli, options, *output).await,
        Command::Waiting(waiting) => {
            let list = UndecryptableCommand::List { limit: waiting.limit };
            undecryptable::run(cli, &list, *output).await
        }
        Command::Undecryptable(command) => undecryptable::run(cli, command, *output).await,
        Command::Store(command) => store::run(cli, command, *output).await,
        Command::Completions { shell } => manual::completions(*shell),
        Command::Man(man) => manual::pages(man, *output),
        Command::Device(device) => device::run(cli, device, *output).await,
        Command::Verify(command) => verify::run(cli, command, *output).await,
        Command::Keys(keys) => keys::run(cli, keys, *output).await,
        Command::Identity(identity) => identity::run(cli, identity, *output).await,
        Command::TrustManifest(manifest) => manifest::run(cli, manifest, *output).await,
        Command::Import(command) => import::run(cli, command, *output).await,
        Command::Appservice(command) => appservice::run(command, *output),
        Command::Backup(backup) => backup::run(cli, backup, *output).await,
    }
}

fn whoami(cli: &Cli, output: Output) -> Result<()> {
    let directory = profile::directory(cli)?;
    let session = Session::of(&directory)?.ok_or(Error::NotLoggedIn { directory })?;
    let json = json!({"user_id": session.user_id, "device_id": session.device_id, "homeserver": session.homeserver});
    output.show(
        &json,
        &format!(
            "{} device {} on {}",
            session.user_id, session.device_id, session.homeserver
        ),
    )?;
    Ok(())
}
