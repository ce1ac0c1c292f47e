//! `mx identity`.

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use mx_e2ee::{
    Client, DehydrationStatus, IdentityStatus, Recovered, RecoveryKeeping, SetUp,
    ruma::api::client::uiaa::{MatrixUserIdentifier, UserIdentifier},
    transport::{Answers, Unattended},
    write_private_file,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{backup, person::Person, secret};
use crate::{
    cli::{BundleCommand, Cli, Existing, IdentityCommand, Passphrase, Password, Recovery},
    output::{Output, clean},
    profile,
    signals::Ended,
};

pub(crate) async fn run(cli: &Cli, command: &IdentityCommand, output: Output) -> Result<()> {
    if matches!(command, IdentityCommand::Reset { yes: false, .. }) {
        let what = "everybody who verified this account has to verify it again after that: say --yes if that is meant";
        bail!(mx_e2ee::Error::Configuration { what: what.to_owned() });
    }
    let client = profile::open(cli).await?;
    let done = carry_out(&client, command, output).await;
    let closed = client.close().await;
    done?;
    Ok(closed?)
}

async fn carry_out(client: &Client, command: &IdentityCommand, output: Output) -> Result<()> {
    match command {
        IdentityCommand::Setup {
            existing,
            recovery,
            password,
        } => match existing {
            Existing {
                bundle: Some(bundle),
                bundle_passphrase_file,
                ..
            } => {
                let passphrase_file = bundle_passphrase_file.clone();
                import_bundle(client, bundle, &Passphrase { passphrase_file }, output).await
            }
            Existing {
                recover_with: Some(file),
                ..
            } => recover(client, Some(file), output).await,
            Existing { .. } => set_up(client, recovery, password, output).await,
        },
        IdentityCommand::Reset { recovery, password, .. } => {
            let keeping = keeping(recovery)?;
            let progress = output.progress("resetting the identity");
            let answers = answers(client, password, output, &progress)?;
            let set_up = client.reset_identity(&*answers, keeping).await;
            let set_up = set_up.map_err(interrupted)?;
            progress.finish_and_clear();
            show_set_up(&set_up, recovery, output)
        }
        IdentityCommand::Recover { recovery_key_file } => recover(client, recovery_key_file.as_deref(), output).await,
        IdentityCommand::Status => {
            let status = client.identity_status().await?;
            Ok(output.show(&json!(status), &described(&status))?)
        }
        IdentityCommand::NewRecoveryKey { recovery } => {
            let key = client.change_recovery_key(keeping(recovery)?).await?;
            show_recovery_key(&key, recovery, output)
        }
        IdentityCommand::Dehydrate {
            recovery_key_file,
            delete,
        } => dehydrate(client, recovery_key_file.as_deref(), *delete, output).await,
        IdentityCommand::Bundle(command) => carry(client, command, output).await,
    }
}

/// A new identity; or the one that there is, where somebody sits here who has its recovery key.
async fn set_up(client: &Client, recovery: &Recovery, password: &Password, output: Output) -> Result<()> {
    let keeping = keeping(recovery)?;
    let progress = output.progress("setting up the identity");
    let answers = answers(client, password, output, &progress)?;
    let set_up = client.set_up_identity(&*answers, keeping).await;
    progress.finish_and_clear();
    match set_up {
        Err(error) if error.code() == "identity_exists" && !output.is_json() && io::stdin().is_terminal() => {
            output
                .note("the account has an identity: its recovery key, or its passphrase, makes this device part of it");
            recover(client, None, output).await
        }
        set_up => show_set_up(&set_up.map_err(interrupted)?, recovery, output),
    }
}

async fn recover(client: &Client, key: Option<&Path>, output: Output) -> Result<()> {
    let key = recovery_key(key).await?;
    let progress = output.progress("recovering the identity");
    let recovered = client.recover_identity(&key).await?;
    progress.finish_and_clear();
    show_recovered(&recovered, output)
}

async fn recovery_key(file: Option<&Path>) -> Result<Zeroizing<String>> {
    match file {
        Some(file) => secret::first_line(file),
        None => {
            let question = "recovery key or passphrase: ";
            secret::typed(question, "the recovery key", "use --recovery-key-file").await
        }
    }
}

async fn dehydrate(client: &Client, key: Option<&Path>, delete: bool, output: Output) -> Result<()> {
    if delete {
        let device = client.delete_dehydrated_device().await?;
        let line = clean(&format!("the dehydrated device {device} is deleted"));
        return Ok(output.show(&json!({"deleted": device}), &line)?);
    }
    let device = client.dehydrate(&recovery_key(key).await?).await?;
    let line = clean(&format!("the dehydrated device {device} takes room keys from now on"));
    Ok(output.show(&json!({"device_id": device}), &line)?)
}

async fn carry(client: &Client, command: &BundleCommand, output: Output) -> Result<()> {
    match command {
        BundleCommand::Export {
            file,
            force,
            passphrase,
        } => {
            let passphrase = secret::new_passphrase(passphrase, "passphrase for the bundle").await?;
            let bundle = client.export_secrets(&passphrase).await?;
            write_private_file(file, bundle.as_bytes(), *force)?;
            let shown = file.display().to_string();
            Ok(output.show(&json!({"file": shown}), &format!("the secrets are in {shown}"))?)
        }
        BundleCommand::Import { file, passphrase } => import_bundle(client, file, passphrase, output).await,
    }
}

async fn import_bundle(client: &Client, file: &Path, passphrase: &Passphrase, output: Output) -> Result<()> {
    let text = secret::text_of(file).context("no bundle could be read")?;
    let passphrase = secret::passphrase(passphrase, "passphrase of the bundle").await?;
    let recovered = client.import_secrets(&text, &passphrase).await?;
    show_recovered(&recovered, output)
}

/// Where a new recovery key goes.
fn keeping(recovery: &Recovery) -> Result<RecoveryKeeping> {
    let mut keeping = RecoveryKeeping::default();
    keeping.file.clone_from(&recovery.recovery_key_file);
    if let Some(file) = &recovery.passphrase_file {
        keeping.passphrase = Some(secret::first_line(file)?);
    }
    Ok(keeping)
}

/// Who answers when the homeserver asks who is there: the password that is known without asking anybody, else whoever sits
/// at the terminal.
fn answers(client: &Client, password: &Password, output: Output, progress: &ProgressBar) -> Result<Box<dyn Answers>> {
    let password = match (&password.password_file, std::env::var("MX_PASSWORD")) {
        (Some(file), _) => secret::first_line(file)?.to_string(),
        (None, Ok(password)) => password,
        (None, Err(_)) => {
            let user = client.user_id().to_owned();
            return Ok(match Person::at_the_terminal(user, output, progress) {
                Some(person) => Box::new(person),
                None => Box::new(Unattended::new()),
            });
        }
    };
    let user = MatrixUserIdentifier::new(client.user_id().to_string());
    Ok(Box::new(
        Unattended::new().password(UserIdentifier::Matrix(user), password),
    ))
}

/// Whoever was asked has pressed Ctrl-C.
fn interrupted(error: mx_e2ee::Error) -> anyhow::Error {
    match error.code() {
        "authentication_given_up" => Ended.into(),
        _ => error.into(),
    }
}

fn show_set_up(set_up: &SetUp, recovery: &Recovery, output: Output) -> Result<()> {
    if let Some(error) = &set_up.backup_error {
        output.note(&format!("mx: {error} [{}]", error.code()));
    }
    let shown = set_up
        .recovery_key
        .as_ref()
        .filter(|_| recovery.recovery_key_file.is_none());
    let shown = shown.map(|key| key.as_str());
    let line = match (shown, &set_up.recovery_key) {
        (Some(key), _) => format!("this device is verified; the recovery key, which is not shown again:\n{key}"),
        (None, Some(_)) => "this device is verified; the recovery key is in its file".to_owned(),
        (None, None) => "this device is verified; the recovery key is the one that there was".to_owned(),
    };
    let json = json!({
        "standing": set_up.standing,
        "recovery_key": shown,
        "backup_version": set_up.backup_version,
        "backup_error": set_up.backup_error.as_ref().map(mx_e2ee::BackupError::code),
    });
    Ok(output.show(&json, &line)?)
}

fn show_recovery_key(key: &str, recovery: &Recovery, output: Output) -> Result<()> {
    let shown = recovery.recovery_key_file.is_none().then_some(key);
    let line = match shown {
        Some(key) => format!("the recovery key, which is not shown again:\n{key}"),
        None => "the recovery key is in its file".to_owned(),
    };
    Ok(output.show(&json!({"recovery_key": shown}), &line)?)
}

fn show_recovered(recovered: &Recovered, output: Output) -> Result<()> {
    if let Some(error) = &recovered.backup_error {
        output.note(&format!("mx: {error} [{}]", error.code()));
    }
    if let Some(error) = &recovered.dehydration_error {
        output.note(&format!("mx: {error} [{}]", error.code()));
    }
    if let Some(rehydrated) = &recovered.rehydrated {
        output.note(&format!(
            "{} room key(s) came while no device was there",
            rehydrated.room_keys
        ));
    }
    let json = json!({
        "standing": recovered.standing,
        "backup_version": recovered.backup_version,
        "backup_error": recovered.backup_error.as_ref().map(mx_e2ee::BackupError::code),
        "rehydrated": recovered.rehydrated,
        "dehydration_error": recovered.dehydration_error.as_ref().map(|error| error.code()),
    });
    let line = match (recovered.standing.is_good(), &recovered.backup_version) {
        (true, Some(_)) => "this device is verified, and uses the key backup: mx backup restore brings all of its keys",
        (true, None) => "this device is verified",
        (false, _) => "the secrets are here, and the homeserver shows no identity: run mx identity setup",
    };
    Ok(output.show(&json, line)?)
}

fn dehydrated(status: &DehydrationStatus) -> String {
    match (&status.device_id, status.supported) {
        (Some(device), _) if status.enabled => {
            format!("{}, replaced by this device every week", clean(device.as_str()))
        }
        (Some(device), _) => format!("{}, which another device made", clean(device.as_str())),
        (None, true) => "none: mx identity dehydrate makes one".to_owned(),
        (None, false) => "the homeserver does not support it".to_owned(),
    }
}

/// Who believes that this device is ours, as far as anybody can know.
fn trusted_by(status: &IdentityStatus) -> String {
    if !status.standing.is_good() {
        return "nobody, before the account's identity vouches for this device".to_owned();
    }
    let mut all = Vec::new();
    if !status.signed_devices.is_empty() {
        all.push(format!("our own {}", listed(&status.signed_devices)));
    }
    let users: Vec<_> = status.verified_by.iter().map(|verified| &verified.user_id).collect();
    if !users.is_empty() {
        all.push(listed(users));
    }
    if all.is_empty() {
        return "nobody yet: mx verify user lets people compare keys with this device".to_owned();
    }
    format!("{}; who verified us elsewhere, only they know", all.join(", "))
}

fn verified(status: &IdentityStatus) -> String {
    let mut all = match status.verified_users.len() {
        0 => "no other user".to_owned(),
        _ => listed(&status.verified_users),
    };
    if !status.changed_users.is_empty() {
        all = format!(
            "{all}; with ANOTHER IDENTITY now, nothing is sent: {}: mx verify user, or mx device acknowledge",
            listed(&status.changed_users)
        );
    }
    all
}

/// At most ten, so that it stays a screen.
fn listed<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    const MOST: usize = 10;
    let mut names: Vec<String> = names.into_iter().map(|name| clean(&name.to_string())).collect();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn described(status: &IdentityStatus) -> String {
    let vouched = if status.standing.is_good() {
        "verified by the account's identity"
    } else {
        "NOT verified by the account's identity"
    };
    let mut lines = vec![
        format!("user             {}", status.user_id),
        format!("device           {} ({vouched})", clean(status.device_id.as_str())),
        format!("fingerprint      {}", status.fingerprint),
        format!(
            "master key       {}",
            status.master_key.as_deref().map_or_else(|| "none".to_owned(), clean)
        ),
        format!("trusted by       {}", trusted_by(status)),
        format!("has verified     {}", verified(status)),
        format!(
            "private keys     {}",
            match status.private_keys_missing.as_slice() {
                [] => "all here".to_owned(),
                missing => format!("missing: {}", missing.join(", ")),
            }
        ),
        format!(
            "secret storage   {}",
            match &status.secret_storage.key_id {
                Some(_) => format!("{} secret(s)", status.secret_storage.holds.len()),
                None => "none".to_owned(),
            }
        ),
        format!("key backup       {}", backup::described(&status.backup)),
        format!("dehydrated       {}", dehydrated(&status.dehydrated_device)),
    ];
    if !status.unsigned_devices.is_empty() {
        let unsigned = listed(&status.unsigned_devices);
        lines.insert(
            6,
            format!("NOT verified     our own {unsigned}: mx verify own --device, or log out what nobody uses"),
        );
    }
    lines.extend(status.problems.iter().map(|problem| {
        let command = if problem.command.is_empty() {
            "-"
        } else {
            problem.command
        };
        format!("! {} [{}]\n  {command}", problem.advice, problem.code)
    }));
    lines.join("\n")
}
