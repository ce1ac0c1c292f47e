//! What our facade does about identities: the same commands as the driver of matrix-js-sdk, and key files.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mx_e2ee::{
    Client, RecoveryKeeping, Verification, VerificationId, VerificationOutcome, VerificationState,
    ruma::{
        OwnedDeviceId, OwnedRoomId, OwnedUserId,
        api::client::uiaa::{MatrixUserIdentifier, UserIdentifier},
    },
    transport::Unattended,
};
use serde_json::{Value, json};
use vodozemac::{base64_decode, base64_encode};

use super::word;

/// Longer than a step of a verification takes anywhere, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Do what is about an identity.
pub(super) async fn run(client: &Client, command: &Value) -> Result<Value> {
    match word(command, "do")? {
        "identity_setup" => set_up(client, command).await,
        "identity_recover" => {
            let recovered = client.recover_identity(word(command, "recovery_key")?).await?;
            let restored = client.restore_backup(None).await?;
            Ok(json!({
                "imported": restored.imported, "total": restored.total, "backup_version": recovered.backup_version,
            }))
        }
        "restore" => {
            let restored = client.restore_backup(None).await?;
            Ok(json!({"imported": restored.imported, "total": restored.total}))
        }
        "identity_status" => status(client).await,
        "standing" => standing(client, command).await,
        "backed_up" => {
            client.back_up().await?;
            let status = client.backup_status().await?;
            let on_server = status.on_server.context("no backup on the homeserver")?;
            let count = command["count"].as_u64().context("no count")?;
            ensure!(on_server.room_keys >= count, "only {} room keys", on_server.room_keys);
            Ok(json!({"version": on_server.version}))
        }
        "export_keys" => {
            let file = client.export_room_keys(word(command, "passphrase")?, None).await?;
            std::fs::write(word(command, "path")?, &file.text)?;
            Ok(json!({"keys": file.room_keys}))
        }
        "import_keys" => {
            let text = std::fs::read_to_string(word(command, "path")?)?;
            let taken = client.import_room_keys(&text, word(command, "passphrase")?).await?;
            Ok(json!({"keys": taken.imported}))
        }
        other => verify(client, other, command).await,
    }
}

async fn set_up(client: &Client, command: &Value) -> Result<Value> {
    let user = UserIdentifier::Matrix(MatrixUserIdentifier::new(client.user_id().to_string()));
    let answers = Unattended::new().password(user, word(command, "password")?);
    let mut keeping = RecoveryKeeping::default();
    keeping.passphrase = command["passphrase"].as_str().map(|words| words.to_owned().into());
    let made = client.set_up_identity(&answers, keeping).await?;
    if let Some(error) = made.backup_error {
        return Err(error).context("no backup");
    }
    let key = made.recovery_key.context("no recovery key")?;
    Ok(json!({"recovery_key": *key}))
}

async fn status(client: &Client) -> Result<Value> {
    let status = client.identity_status().await?;
    let good = status.standing == mx_e2ee::IdentityStanding::Good;
    Ok(json!({
        "private_keys": status.private_keys_missing.is_empty(), "cross_signed": good,
        "backup_key": status.backup.on_server.as_ref().is_some_and(|backup| backup.is_ours),
        "backup_version": status.backup.version, "master_key": status.master_key, "problems": status.problems,
    }))
}

/// How a user stands here: of a device it is said with each of its messages.
async fn standing(client: &Client, command: &Value) -> Result<Value> {
    client.sync().await?;
    let user = OwnedUserId::try_from(word(command, "user")?)?;
    let identity = client.user_identity(&user).await?;
    Ok(json!({"user": identity.is_some_and(|identity| identity.verified)}))
}

async fn verify(client: &Client, what: &str, command: &Value) -> Result<Value> {
    if what == "verify_request" {
        return request(client, command).await;
    }
    let user_id = OwnedUserId::try_from(word(command, "user")?)?;
    let flow_id = word(command, "flow")?.to_owned();
    let one = client.verification(VerificationId { user_id, flow_id });
    match what {
        "verify_accept" => {
            until(&one, |state| *state == VerificationState::Requested).await?;
            one.accept().await?;
            Ok(json!({}))
        }
        "verify_start" => {
            until(&one, |state| {
                matches!(state, VerificationState::Ready { sas: true, .. })
            })
            .await?;
            one.start().await?;
            Ok(json!({}))
        }
        "verify_compare" => {
            let compare = until(&one, |state| matches!(state, VerificationState::Compare { .. })).await?;
            let VerificationState::Compare { emoji, decimals } = compare else {
                bail!("nothing to compare: {compare:?}");
            };
            let emoji: Option<Vec<_>> = emoji.map(|all| all.into_iter().map(|one| one.symbol).collect());
            Ok(json!({"decimals": decimals, "emoji": emoji}))
        }
        "verify_confirm" => {
            one.confirm().await?;
            done(&one).await
        }
        "verify_done" => done(&one).await,
        "verify_mismatch" => {
            one.mismatch().await?;
            Ok(json!({}))
        }
        "verify_cancelled" => match ended(&one).await? {
            VerificationOutcome::Cancelled { code, .. } => Ok(json!({"code": code})),
            other => bail!("it was not cancelled: {other:?}"),
        },
        _ => by_code(&one, what, command).await,
    }
}

async fn by_code(one: &Verification, what: &str, command: &Value) -> Result<Value> {
    match what {
        "verify_show_qr" => {
            until(one, |state| {
                matches!(state, VerificationState::Ready { they_scan: true, .. })
            })
            .await?;
            Ok(json!({"code": base64_encode(one.show_qr().await?.bytes())}))
        }
        "verify_scan" => {
            until(one, |state| {
                matches!(state, VerificationState::Ready { they_show: true, .. })
            })
            .await?;
            one.scan(&base64_decode(word(command, "code")?.trim_end_matches('='))?)
                .await?;
            Ok(json!({}))
        }
        "verify_scanned" => {
            until(one, |state| *state == VerificationState::QrScanned).await?;
            one.confirm().await?;
            done(one).await
        }
        other => bail!("unknown command {other}"),
    }
}

async fn request(client: &Client, command: &Value) -> Result<Value> {
    let user = OwnedUserId::try_from(word(command, "user")?)?;
    let one = match (command["room"].as_str(), command["device"].as_str()) {
        (Some(room), _) => client.verify_user_in(&OwnedRoomId::try_from(room)?, &user).await?,
        (None, Some(device)) => client.verify_device(&user, &OwnedDeviceId::from(device)).await?,
        (None, None) => client.verify_own_devices().await?,
    };
    Ok(json!({"flow": one.id().flow_id}))
}

/// Wait until it stands so.
async fn until(
    one: &Verification,
    wanted: impl Fn(&VerificationState) -> bool + Send + Sync,
) -> Result<VerificationState> {
    let state = tokio::time::timeout(PATIENCE, one.wait_until(&wanted)).await;
    let state = state.with_context(|| format!("it stays {:?}", one.state()))?;
    let state = state.context("it was let go of")?;
    ensure!(wanted(&state), "it ended: {state:?}");
    Ok(state)
}

async fn ended(one: &Verification) -> Result<VerificationOutcome> {
    match until(one, VerificationState::is_ended).await? {
        VerificationState::Ended(outcome) => Ok(outcome),
        other => bail!("it did not end: {other:?}"),
    }
}

async fn done(one: &Verification) -> Result<Value> {
    match ended(one).await? {
        VerificationOutcome::Done { devices, user } => Ok(json!({"devices": devices, "user": user})),
        other => bail!("nothing was verified: {other:?}"),
    }
}
