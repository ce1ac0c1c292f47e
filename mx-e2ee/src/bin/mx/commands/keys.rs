//! `mx keys`.

use anyhow::Result;
use serde_json::json;

use crate::{
    cli::{Cli, KeysCommand},
    output::Output,
    profile,
};

pub(crate) async fn run(cli: &Cli, command: &KeysCommand, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    if matches!(command, KeysCommand::Publish) {
        client.sync().await?;
        client.publish_keys().await?;
    }
    let keys = client.key_status().await?;
    client.close().await?;
    let published = if keys.published {
        "published"
    } else {
        "NOT published: run mx keys publish"
    };
    let lines = format!(
        "user           {}\ndevice         {} ({published})\nfingerprint    {}\ncurve25519     {}\none-time keys  {} on the homeserver",
        keys.user_id, keys.device_id, keys.ed25519, keys.curve25519, keys.one_time_keys
    );
    output.show(&json!(keys), &lines)?;
    Ok(())
}
