//! `mx undecryptable`; `mx waiting` is its list under an older name.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use mx_e2ee::{Client, Event, Undecryptable, UndecryptableReason, orchestrator};
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
    // What waits for its sender to be accepted has its key.
    let mut wanted = client.waiting(0, usize::MAX).await?;
    wanted.retain(|event| !matches!(event.reason, UndecryptableReason::NotAccepted { .. }));
    let fetched = fetch(client, &wanted).await;
    let asked = if ask { ask_for(client, &wanted).await? } else { 0 };
    client.retry_undecryptable().await?;
    let read = became_messages(client, &wanted).await?;
    let waiting = client.waiting_counts().await?.waiting;
    progress.finish_and_clear();
    let keys = *fetched.as_ref().unwrap_or(&0);
    let json = json!({"read": read, "waiting": waiting, "keys_from_backup": keys, "asked": asked});
    output.show(&json, &format!("{read} event(s) can be read now, {waiting} still wait"))?;
    if read > 0 {
        output.note("mx listen prints them");
    }
    // What is here was tried all the same.
    fetched.map(drop)
}

/// How many keys of these events the key backup has. None where there is no backup that could be used.
async fn fetch(client: &Client, wanted: &[Undecryptable]) -> Result<usize> {
    let sessions: BTreeSet<_> = wanted
        .iter()
        .filter_map(|event| Some((&event.room_id, event.session_id.as_deref()?)))
        .collect();
    let mut keys = 0;
    for (room, session) in sessions {
        match client.orchestrator().fetch_room_key(room, session).await {
            Ok(found) => keys += usize::from(found),
            Err(error @ orchestrator::Error::Backup(_)) => {
                tracing::debug!(code = error.code(), "no keys from the backup");
                break;
            }
            Err(error) => return Err(mx_e2ee::Error::from(error).into()),
        }
    }
    Ok(keys)
}

/// A word to our other devices.
async fn ask_for(client: &Client, wanted: &[Undecryptable]) -> Result<usize> {
    let mut asked = 0;
    for event in wanted {
        asked += usize::from(client.request_key(event).await?);
    }
    Ok(asked)
}

/// How many of these events are messages now: others of them may have been rejected.
async fn became_messages(client: &Client, wanted: &[Undecryptable]) -> Result<usize> {
    let wanted: BTreeSet<_> = wanted.iter().map(|event| &event.event_id).collect();
    let (mut read, mut last) = (0, None);
    loop {
        let page = client.orchestrator().inbox(last.as_ref(), PAGE).await;
        let page = page.map_err(mx_e2ee::Error::from)?;
        let messages = page.iter().filter(|delivery| match &delivery.event {
            Event::Message(message) => wanted.contains(&message.event_id),
            _ => false,
        });
        read += messages.count();
        match page.last() {
            Some(newest) => last = Some(newest.clone()),
            None => return Ok(read),
        }
    }
}
