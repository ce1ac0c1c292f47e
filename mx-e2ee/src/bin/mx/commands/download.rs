//! `mx download`, and the files of `mx listen --save`.

use std::{
    io::{BufRead, BufReader},
    path::Path,
};

use anyhow::{Context, Result};
use mx_e2ee::{Files, Message, ReceivedFile};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, Download},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, download: &Download, output: Output) -> Result<()> {
    let files = profile::bare_builder(cli)?.files().await?;
    let files = files.max_bytes(download.max.saturating_mul(1024 * 1024));
    let mut failed = None;
    for line in BufReader::new(std::io::stdin()).lines() {
        let line = line.context("stdin is not UTF-8")?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = "a line of stdin is not what mx listen --json prints";
        let event: Value = serde_json::from_str(&line).context(wrong)?;
        if event["kind"] != "message" {
            continue;
        }
        let message: Message = serde_json::from_value(event).context(wrong)?;
        // One that cannot be had does not keep the others away.
        if let Err(error) = keep(&files, &message, &download.to, output).await {
            if failed.is_some() {
                output.note(&format!("mx: {}: {error:#}", clean(message.event_id.as_str())));
            }
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Keep the file of a message, if it has one, and say where.
pub(super) async fn keep(files: &Files, message: &Message, directory: &Path, output: Output) -> Result<()> {
    let Some(file) = ReceivedFile::of(message).map_err(mx_e2ee::Error::from)? else {
        return Ok(());
    };
    let progress = output.progress("receiving a file");
    let kept = files.download_into(&file, directory).await;
    progress.finish_and_clear();
    let path = kept?;
    let shown = path.display().to_string();
    output.show(&about(message, &file, &shown), &clean(&shown))?;
    Ok(())
}

fn about(message: &Message, file: &ReceivedFile, path: &str) -> Value {
    json!({
        "kind": "file",
        "room_id": message.room_id,
        "event_id": message.event_id,
        "sender": message.sender,
        "path": path,
        "claimed_name": file.claimed_name,
        "mime": file.mime,
    })
}
