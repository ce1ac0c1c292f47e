//! `mx waiting`.

use anyhow::Result;
use serde_json::json;

use crate::{
    cli::{Cli, Waiting},
    output::{Output, clean},
    profile,
};

pub(crate) async fn run(cli: &Cli, waiting: &Waiting, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let counts = client.waiting_counts().await?;
    let mut lines = Vec::new();
    for event in client.waiting(0, waiting.limit).await? {
        let why = client.explain(&event).await?;
        let head = format!("{} {} {}", event.room_id, event.sender, event.event_id);
        let text = why.findings.iter().chain([&why.advice]);
        let text: Vec<String> = text.map(|line| format!("  {}", clean(line))).collect();
        lines.push((
            json!({"event": event, "findings": why.findings, "advice": why.advice}),
            format!("{}\n{}", clean(&head), text.join("\n")),
        ));
    }
    client.close().await?;
    for (json, line) in &lines {
        output.show(json, line)?;
    }
    output.note(&format!(
        "{} event(s) wait for their keys, {} of them were reported",
        counts.waiting, counts.reported
    ));
    Ok(())
}
