//! The tasks, done with matrix-sdk and its SQLite store, with a passphrase: encrypted, as ours is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use matrix_sdk::{
    Client,
    authentication::matrix::MatrixSession,
    config::SyncSettings,
    ruma::{
        OwnedRoomId,
        api::client::filter::FilterDefinition,
        events::room::message::{OriginalSyncRoomMessageEvent, RoomMessageEventContent},
    },
};

use crate::{
    contender::{Done, Order, Task},
    server::PASSWORD,
};

/// As much as ours asks for at once, so that no timeline has a gap.
const TIMELINE: u32 = 1_000;

pub(crate) async fn run(order: &Order) -> Result<Done> {
    let store = order.directory.join("sdk");
    let kept = order.directory.join("session.json");
    let client = Client::builder()
        .homeserver_url(&order.url)
        .sqlite_store(&store, Some("a passphrase of the measurement"))
        .build()
        .await?;
    if let Task::Login = order.task {
        client
            .matrix_auth()
            .login_username(&order.user, PASSWORD)
            .send()
            .await?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        client.sync_once(settings()).await?;
        let session = client.matrix_auth().session().context("no session")?;
        std::fs::write(&kept, serde_json::to_vec(&session)?)?;
        return Ok(Done {
            token: session.tokens.access_token,
            ..Done::default()
        });
    }
    let session: MatrixSession = serde_json::from_slice(&std::fs::read(&kept)?)?;
    client.restore_session(session).await?;
    let started = Instant::now();
    let messages = match &order.task {
        Task::Login => 0,
        Task::Sync => {
            client.sync_once(settings()).await?;
            0
        }
        Task::Send { rooms, messages } => {
            try_join_all(rooms.iter().map(|room| send(&client, room, *messages))).await?;
            rooms.len() * messages
        }
        Task::Receive { messages } => receive(&client, *messages).await?,
    };
    Ok(Done {
        messages,
        took: started.elapsed(),
        ..Done::default()
    })
}

fn settings() -> SyncSettings {
    let mut filter = FilterDefinition::default();
    filter.room.timeline.limit = Some(TIMELINE.into());
    SyncSettings::new().timeout(Duration::ZERO).filter(filter.into())
}

async fn send(client: &Client, room: &str, messages: usize) -> Result<()> {
    let room = client
        .get_room(&OwnedRoomId::try_from(room)?)
        .context("the room is not known")?;
    for number in 0..messages {
        room.send(RoomMessageEventContent::text_plain(format!("message {number}")))
            .await?;
    }
    Ok(())
}

async fn receive(client: &Client, messages: usize) -> Result<usize> {
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    let me = client.user_id().context("nobody")?.to_owned();
    client.add_event_handler(move |event: OriginalSyncRoomMessageEvent| {
        let others = usize::from(event.sender != me);
        counted.fetch_add(others, Ordering::Relaxed);
        std::future::ready(())
    });
    while read.load(Ordering::Relaxed) < messages {
        client.sync_once(settings().timeout(Duration::from_secs(10))).await?;
    }
    Ok(read.load(Ordering::Relaxed))
}
