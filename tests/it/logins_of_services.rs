//! A fleet: many bots of one application service in one process.

use std::{sync::Arc, time::Duration};

use mx_e2ee::{Client, Event, Fleet};
use ruma::{OwnedUserId, UserId, user_id};
use tempfile::TempDir;

use crate::{
    attachments::{code, requests},
    world::World,
};

const AS_TOKEN: &str = "as-token-of-the-test-homeserver";

fn scene() -> (World, Arc<TempDir>, Fleet) {
    let world = World::new();
    world.add_appservice(AS_TOKEN, "bot.fleet", "bot.");
    world.guard_secret(AS_TOKEN);
    let here = Arc::new(tempfile::tempdir().unwrap());
    world.keep(&here);
    let fleet = Fleet::new("http://localhost", AS_TOKEN, here.path(), world.transport());
    (world, here, fleet)
}

fn bot(number: usize) -> OwnedUserId {
    UserId::parse(format!("@bot.{number}:localhost")).unwrap()
}

async fn heard(client: &Client) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let events = client.receive(Duration::ZERO).await.unwrap();
        if events.is_empty() {
            heard.sort();
            return heard;
        }
        heard.extend(events.into_iter().filter_map(|event| match event {
            Event::Message(message) => message.body().map(str::to_owned),
            _ => None,
        }));
    }
}

#[tokio::test]
async fn ten_bots_of_one_process_speak_encrypted_with_each_other() {
    let (world, _here, fleet) = scene();
    let mut bots = Vec::new();
    for number in 0..10 {
        bots.push(fleet.bot(&bot(number)).await.unwrap());
    }
    let devices: std::collections::BTreeSet<_> = bots.iter().map(|bot| bot.device_id().to_owned()).collect();
    assert_eq!(devices.len(), 10);
    let others: Vec<OwnedUserId> = (1..10).map(bot).collect();
    let room = bots[0].create_room(None, &others).await.unwrap().id().to_owned();
    for bot in &bots[1..] {
        bot.join(room.as_str()).await.unwrap();
    }
    for (number, bot) in bots.iter().enumerate() {
        bot.room(&room).send_text(format!("from {number}")).await.unwrap();
    }
    for (number, bot) in bots.iter().enumerate() {
        let expected: Vec<String> = (0..10)
            .filter(|other| *other != number)
            .map(|other| format!("from {other}"))
            .collect();
        assert_eq!(heard(bot).await, expected, "bot {number}");
    }
    assert_eq!(requests(&world, "/login"), 0);
    let log = world.log();
    let sent = log
        .iter()
        .find(|exchange| exchange.path.contains("/send/m.room.encrypted/"))
        .unwrap();
    assert!(
        sent.query
            .iter()
            .any(|(name, value)| name == "user_id" && value == "@bot.0:localhost")
    );
}

#[tokio::test]
async fn a_bot_goes_on_where_it_was_and_ends_alone() {
    let (world, _here, fleet) = scene();
    let first = fleet.bot(&bot(1)).await.unwrap();
    let second = fleet.bot(&bot(2)).await.unwrap();
    let room = first.create_room(None, &[bot(2)]).await.unwrap().id().to_owned();
    second.join(room.as_str()).await.unwrap();
    let device = first.device_id().to_owned();
    first.close().await.unwrap();
    second.room(&room).send_text("while you were away").await.unwrap();
    let first = fleet.bot(&bot(1)).await.unwrap();
    assert_eq!(first.device_id(), device);
    assert_eq!(heard(&first).await, ["while you were away"]);
    first.room(&room).send_text("back").await.unwrap();
    assert_eq!(heard(&second).await, ["back"]);
    // The token is everybody's, and the logout that of one.
    first.logout().await.unwrap();
    assert!(world.devices_of(&bot(1)).is_empty());
    second.sync().await.unwrap();
    let anew = fleet.bot(&bot(1)).await.unwrap();
    assert_ne!(anew.device_id(), device);
}

#[tokio::test]
async fn users_of_others_are_refused_and_a_homeserver_without_devices_for_services_logs_in() {
    let (world, _here, fleet) = scene();
    let alice = world.register("alice", "password");
    assert_eq!(code(fleet.bot(&alice).await), "exclusive");
    assert!(world.devices_of(&alice).is_empty());
    world.fault(mx_test_homeserver::Fault::status(
        "/devices/",
        404,
        r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#,
    ));
    let client = fleet.bot(user_id!("@bot.old:localhost")).await.unwrap();
    assert_eq!(requests(&world, "/login"), 1);
    client.sync().await.unwrap();
    client.close().await.unwrap();
    let client = fleet.bot(user_id!("@bot.old:localhost")).await.unwrap();
    client.sync().await.unwrap();
    let log = world.log();
    assert!(
        !log.last().unwrap().query.iter().any(|(name, _)| name == "user_id"),
        "it has a token of its own"
    );
}
