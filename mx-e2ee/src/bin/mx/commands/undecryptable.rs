//! `mx undecryptable`; `mx waiting` is its list under an older name.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use mx_e2ee::{Client, Undecryptable};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, UndecryptableCommand},
    output::{Output, clean},
    profile,
};

/// So many events are looked through for one.
const PAGE: usize = 500;

pub(crate) async fn run(cli: &Cli, command: &UndecryptableCommand, output: Output) -> Result<()> {
    let client = profile::open(cli).await?;
    let done = match command {
        UndecryptableCommand::List { limit } => list(&client, *limit, output).await,
        UndecryptableCommand::Explain { event } => explain(&client, event, output).await,
        UndecryptableCommand::Retry { ask } => retry(&client, *ask, output).await,
    };
    let closed = client.close().await;
    done?;
    Ok(closed?)
}

async fn list(client: &Client, limit: usize, output: Output) -> Result<()> {
    let counts = client.waiting_counts().await?;
    let mut lines = Vec::new();
    for event in client.waiting(0, limit).await? {
        lines.push(described(client, &event).await?);
    }
    for (json, line) in &lines {
        output.show(json, line)?;
    }
    output.note(&format!(
        "{} event(s) wait for their keys, {} of them were reported",
        counts.waiting, counts.reported
    ));
    Ok(())
}

async fn described(client: &Client, event: &Undecryptable) -> Result<(Value, String)> {
    let why = client.explain(event).await?;
    let head = format!("{} {} {}", event.room_id, event.sender, event.event_id);
    let text = why.findings.iter().chain([&why.advice]);
    let text: Vec<String> = text.map(|line| format!("  {}", clean(line))).collect();
    Ok((
        json!({"event": event, "findings": why.findings, "advice": why.advice}),
        format!("{}\n{}", clean(&head), text.join("\n")),
    ))
}

async fn explain(client: &Client, id: &str, output: Output) -> Result<()> {
    let mut skip = 0;
    loop {
        let page = client.waiting(skip, PAGE).await?;
        if let Some(event) = page.iter().find(|event| event.event_id == id) {
            let (json, line) = described(client, event).await?;
            return Ok(output.show(&json, &line)?);
        }
        if page.len() < PAGE {
            bail!(
                "{} does not wait for its key: it was read, or given up, or never came",
                clean(id)
            );
        }
        skip += PAGE;
    }
}

async fn retry(client: &Client, ask: bool, output: Output) -> Result<()> {
    let progress = output.progress("trying again");
    let before = client.waiting_counts().await?.waiting;
    let fetched = fetch(client, ask).await?;
    client.retry_undecryptable().await?;
    let after = client.waiting_counts().await?.waiting;
    progress.finish_and_clear();
    let read = before.saturating_sub(after);
    let json = json!({"read": read, "waiting": after, "keys_from_backup": fetched.keys, "asked": fetched.asked});
    output.show(&json, &format!("{read} event(s) can be read now, {after} still wait"))?;
    if read > 0 {
        output.note("mx listen prints them");
    }
    Ok(())
}

#[derive(Default)]
struct Fetched {
    keys: usize,
    asked: usize,
}

/// What the key backup has, and a word to our other devices.
async fn fetch(client: &Client, ask: bool) -> Result<Fetched> {
    let mut fetched = Fetched::default();
    let waiting = client.waiting(0, usize::MAX).await?;
    let sessions: BTreeSet<_> = waiting
        .iter()
        .filter_map(|event| Some((&event.room_id, event.session_id.as_deref()?)))
        .collect();
    for (room, session) in sessions {
        match client.orchestrator().fetch_room_key(room, session).await {
            Ok(found) => fetched.keys += usize::from(found),
            Err(error) => {
                // Without a backup there is nothing to fetch, and what is here can be tried all the same.
                tracing::debug!(code = error.code(), "no keys from the backup");
                break;
            }
        }
    }
    if ask {
        for event in &waiting {
            fetched.asked += usize::from(client.request_key(event).await?);
        }
    }
    Ok(fetched)
}
