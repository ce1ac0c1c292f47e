//! The tasks, done with our facade.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use mx_e2ee::{Client, Event};
use ruma::OwnedRoomId;

use crate::{
    contender::{Done, Order, Task},
    server::PASSWORD,
};

pub(crate) async fn run(order: &Order) -> Result<Done> {
    let builder = Client::builder().homeserver(&order.url).directory(&order.directory);
    if let Task::Login = order.task {
        let client = builder.login(&order.user, PASSWORD).await?;
        // On the disk it is sealed.
        let token = client.homeserver().access_token().context("no token")?;
        let token = token.expose().to_owned();
        client.close().await?;
        return Ok(Done {
            token,
            ..Done::default()
        });
    }
    let client = builder.open().await?;
    let started = Instant::now();
    let messages = match &order.task {
        Task::Login => 0,
        Task::Sync => {
            client.sync().await?;
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

async fn send(client: &Client, room: &str, messages: usize) -> Result<()> {
    let room = client.room(&OwnedRoomId::try_from(room)?);
    for number in 0..messages {
        room.send_text(format!("message {number}")).await?;
    }
    Ok(())
}

async fn receive(client: &Client, messages: usize) -> Result<usize> {
    let mut read = 0;
    while read < messages {
        let events = client.receive(Duration::from_secs(10)).await?;
        let encrypted = |event: &&Event| matches!(event, Event::Message(message) if message.encryption.is_some());
        read += events.iter().filter(encrypted).count();
    }
    Ok(read)
}
