//! `mx device`.

use anyhow::Result;
use mx_e2ee::{
    Client, ListedDevice,
    ruma::{DeviceId, OwnedDeviceId, UserId},
};
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
            let user = user
                .as_ref()
                .map_or_else(|| Ok(client.user_id().to_owned()), |user| user_id(user))?;
            let known = client.devices(&user).await?;
            for device in &known.devices {
                let mut json = json!(device);
                json["user_id"] = json!(user);
                output.show(&json, &line(device))?;
            }
            if known.devices.is_empty() {
                output.note(&format!(
                    "the homeserver shows no device of {user}: is the user id right?"
                ));
            } else {
                output.note(&format!("{user}: {}", known.identity.describe()));
            }
        }
        DeviceCommand::Block { user, device } => {
            let (user, device) = (user_id(user)?, OwnedDeviceId::from(device.as_str()));
            client.block_device(&user, &device).await?;
            output.note("it gets no room key any more");
            look_for(&client, &user, &device, output).await;
        }
        DeviceCommand::Trust {
            user,
            device,
            fingerprint,
        } => {
            let (user, device) = (user_id(user)?, OwnedDeviceId::from(device.as_str()));
            client.trust_device(&user, &device, fingerprint).await?;
            output.note("it is trusted as long as it has this fingerprint");
            look_for(&client, &user, &device, output).await;
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

/// What was decided holds for a device that comes later, too; more often, its name was mistyped.
async fn look_for(client: &Client, user: &UserId, device: &DeviceId, output: Output) {
    let Ok(known) = client.devices(user).await else { return };
    let mut shown = known.devices.iter().filter(|known| known.shown);
    if !shown.any(|known| known.device_id == *device) {
        output.note(&clean(&format!(
            "{user} has no device {device} that is known here: is that right? It counts from when it comes"
        )));
    }
}

fn line(device: &ListedDevice) -> String {
    let how = match (&device.unusable, device.shown) {
        (_, false) => format!("{}; the homeserver does not show it", device.trust.describe()),
        (Some(reason), _) => reason.describe().to_owned(),
        (None, _) => device.trust.describe().to_owned(),
    };
    let name = device.name.as_deref().map(|name| format!(" ({})", clean(name)));
    format!(
        "{} {} {how}{}{}",
        clean(device.device_id.as_str()),
        device.ed25519.as_deref().unwrap_or("-"),
        if device.own { ", this device" } else { "" },
        name.unwrap_or_default()
    )
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
