//! `mx device`.

use anyhow::Result;
use mx_e2ee::{Client, DeviceTrust, ruma::OwnedDeviceId};
use serde_json::json;

use super::room::user_id;
use crate::{
    cli::{Cli, DeviceCommand},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &DeviceCommand, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    match command {
        DeviceCommand::List { user } => {
            let user = user_id(user)?;
            for (device, trust) in client.device_trust(&user).await? {
                let what = match &trust {
                    DeviceTrust::Blocked => "blocked".to_owned(),
                    DeviceTrust::Trusted { ed25519 } => format!("trusted as {ed25519}"),
                    _ => "?".to_owned(),
                };
                let json = json!({"user_id": user, "device_id": device, "decision": trust});
                output.show(&json, &format!("{user} {} {what}", clean(device.as_str())))?;
            }
        }
        DeviceCommand::Block { user, device } => {
            client
                .block_device(&user_id(user)?, &OwnedDeviceId::from(device.as_str()))
                .await?;
            output.note("it gets no room key any more");
        }
        DeviceCommand::Trust {
            user,
            device,
            fingerprint,
        } => {
            client
                .trust_device(&user_id(user)?, &OwnedDeviceId::from(device.as_str()), fingerprint)
                .await?;
            output.note("it is trusted as long as it has this fingerprint");
        }
        DeviceCommand::Forget { user, device } => {
            client
                .unblock_device(&user_id(user)?, &OwnedDeviceId::from(device.as_str()))
                .await?;
            output.note("it is neither blocked nor trusted");
        }
        DeviceCommand::Identity { user } => identity(&client, user, output).await?,
        DeviceCommand::Acknowledge { user, master_key } => {
            client.acknowledge_identity_change(&user_id(user)?, master_key).await?;
            output.note("sends go on; the user counts as not verified");
        }
    }
    client.close().await?;
    Ok(())
}

async fn identity(client: &Client, user: &str, output: Output) -> Result<()> {
    let user = user_id(user)?;
    let status = client.user_identity(&user).await?;
    let line = status.as_ref().map_or_else(
        || format!("{user} has no identity that is known here"),
        |status| {
            let how = match (status.verified, status.verification_lost, status.changed) {
                (true, ..) => "verified",
                (_, true, _) => "REPLACED after it was verified",
                (_, _, true) => "replaced since it was first seen",
                _ => "not verified",
            };
            format!(
                "{user} {how}, master key {}",
                status.master_key.as_deref().unwrap_or("none")
            )
        },
    );
    output.show(&json!(status), &clean(&line))?;
    Ok(())
}
