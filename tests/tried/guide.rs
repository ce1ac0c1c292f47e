//! The guide's Rust, run: every block of it is a piece of `the_story`, to the letter.
#![expect(
    clippy::print_stdout,
    clippy::cloned_ref_to_slice_refs,
    reason = "it is written as a reader would write it"
)]

use std::time::Duration;

use anyhow::Result;
use mx_e2ee::{
    Attachment, Client, Content, Event, Recipients, RecoveryKeeping, Room, RoomPolicy, transport::Unattended,
};
use mx_test_homeserver::Homeserver;
use ruma::OwnedUserId;

const GUIDE: &str = include_str!("../../mx-e2ee/GUIDE.md");
const STORY: &str = include_str!("guide.rs");

/// Somebody to talk to.
async fn friend_of(server: &Homeserver, directory: &std::path::Path) -> Result<Client> {
    let builder = Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport());
    Ok(builder
        .directory(directory.join("friend"))
        .login("friend", "friend-password")
        .await?)
}

/// What the friend can read by now.
async fn read(friend: &Client) -> Result<Vec<String>> {
    let mut read = Vec::new();
    loop {
        let events = friend.receive(Duration::ZERO).await?;
        if events.is_empty() {
            return Ok(read);
        }
        read.extend(events.into_iter().filter_map(|event| match event {
            Event::Message(message) if message.encryption.is_some() => {
                Some(message.body().unwrap_or(&message.event_type).to_owned())
            }
            _ => None,
        }));
    }
}

/// What went over the wire since the last look, without what a sync is.
fn wire(server: &Homeserver, seen: &mut usize) -> Vec<String> {
    let log = server.log();
    let new = log.iter().skip(*seen).map(|exchange| exchange.path.clone()).collect();
    *seen = log.len();
    new
}

#[tokio::test]
async fn the_story() -> Result<()> {
    let (server, here) = (Homeserver::new(), tempfile::tempdir()?);
    let _user = server.register("mybot", "password");
    let friend: OwnedUserId = server.register("friend", "friend-password");
    let friends = friend_of(&server, here.path()).await?;
    let listening = server.listen().await;
    let (homeserver, directory, password) = (listening.uri(), here.path().join("bot"), "password".to_owned());

    let bot = Client::builder()
        .homeserver(&homeserver)
        .directory(&directory)
        .login("mybot", &password)
        .await?;
    println!("{} is here as device {}", bot.user_id(), bot.device_id());
    bot.close().await?;
    let before = server.devices_of(ruma::user_id!("@mybot:localhost"));

    let bot = Client::builder().directory(&directory).open().await?;
    assert_eq!(server.devices_of(bot.user_id()), before);

    let mut seen = server.log().len();
    sends(&bot, &friend, &server, &mut seen, &friends).await?;
    receives(&bot, &friends).await?;
    marks(&bot, &friend).await?;
    verifies(&bot).await?;
    bot.close().await?;
    Ok(())
}

async fn sends(
    bot: &Client,
    friend: &OwnedUserId,
    server: &Homeserver,
    seen: &mut usize,
    friends: &Client,
) -> Result<()> {
    let room = bot.create_room(Some("plans"), &[friend.clone()]).await?;
    let receipt = room.send_text("the eagle lands at noon").await?;
    for device in receipt.devices.iter() {
        println!("{} {}: {}", device.user_id, device.device_id, device.outcome.describe());
    }
    assert_eq!(receipt.readable_by(), 1);
    let steps = [
        "/members",
        "/keys/query",
        "/keys/claim",
        "/sendToDevice/",
        "/send/m.room.encrypted/",
    ];
    let first = wire(server, seen);
    let mut paths = first.iter();
    assert!(
        steps.iter().all(|step| paths.any(|path| path.contains(step))),
        "not in this order: {first:?}"
    );
    room.send_text("and later again").await?;
    let later = wire(server, seen);
    assert!(
        steps[..4]
            .iter()
            .all(|step| !later.iter().any(|path| path.contains(step))),
        "{later:?}"
    );

    let sent = room.post(Content::markdown("**noon** it is").mention(friend)).await?;
    room.edit(&sent.event_id, Content::text("half past noon")).await?;
    room.react(&sent.event_id, "🦅").await?;
    room.send_attachment(Attachment::from_bytes("plan.txt", b"first, the eagle".to_vec()))
        .await?;
    friends.join(room.id().as_str()).await?;
    let read = read(friends).await?;
    assert_eq!(read.len(), 6, "{read:?}");
    says_what_fails(&room).await;
    Ok(())
}

async fn says_what_fails(room: &Room) {
    match room.send_text("is this read?").await {
        Ok(receipt) => println!("{} devices can read it", receipt.readable_by()),
        Err(error) if error.code() == "send_pending" => println!("it is on the disk, and goes out with the next call"),
        Err(error) if error.is_transient() => println!("later: {error}"),
        Err(error) => println!("somebody has to do something: {error} [{}]", error.code()),
    }
}

async fn receives(bot: &Client, friends: &Client) -> Result<()> {
    let rooms = friends.rooms().await?;
    rooms[0].send_text("I can see it").await?;
    let mut events = Vec::new();
    while events.is_empty() {
        bot.sync().await?;
        events = bot.orchestrator().inbox(None, 10).await?;
    }
    assert!(matches!(&events[0].event, Event::Message(message) if message.body() == Some("I can see it")));

    for event in bot.receive(Duration::from_secs(30)).await? {
        match event {
            Event::Message(message) => println!("{}: {}", message.sender, message.body().unwrap_or("…")),
            Event::Undecryptable(event) => println!("{} cannot be read: {}", event.event_id, event.advice),
            Event::Rejected(event) => println!("{} must not be believed", event.event_id),
            _ => {}
        }
    }
    Ok(())
}

async fn marks(bot: &Client, friend: &OwnedUserId) -> Result<()> {
    let room = bot.create_plaintext_room(Some("old"), &[friend.clone()]).await?;
    room.mark_encrypted().await?;
    assert!(room.is_encrypted().await?);
    room.send_text("sealed now").await?;

    let allowed = Some([friend.clone()].into());
    room.set_policy(RoomPolicy {
        recipients: Some(Recipients::OnlyTrusted),
        allowed,
    })
    .await?;
    let Err(refused) = room.send_text("for whom?").await else {
        anyhow::bail!("it was sent to somebody who is not trusted");
    };
    assert_eq!(refused.code(), "no_usable_recipients", "nobody was verified");
    Ok(())
}

async fn verifies(bot: &Client) -> Result<()> {
    let made = bot
        .set_up_identity(&Unattended::new(), RecoveryKeeping::default())
        .await?;
    if let Some(key) = made.recovery_key {
        println!("keep this where the disk of the bot is not: {}", *key);
    }
    Ok(())
}

/// Rust, without where its lines are broken and without what tells a value from what is lent of it.
fn plain(code: &str) -> String {
    code.split_whitespace()
        .collect::<String>()
        .replace(",}", "}")
        .replace('&', "")
}

#[test]
fn every_block_of_the_guide_is_a_piece_of_the_story() {
    let story = plain(STORY);
    let mut blocks = 0;
    for block in GUIDE.split("```rust\n").skip(1) {
        let code = block.split("```").next().unwrap();
        assert!(story.contains(&plain(code)), "not in tests/tried/guide.rs:\n{code}");
        blocks += 1;
    }
    assert_eq!(blocks, 9);
}

#[test]
fn every_code_of_the_guide_is_one() {
    let crates = [
        include_str!("../../mx-olm-orchestrator/src/error/code.rs"),
        include_str!("../../mx-crypto-store/src/error.rs"),
        include_str!("../../mx-e2ee/src/error.rs"),
    ];
    let rows = GUIDE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let codes: Vec<_> = rows
        .map(|(code, _)| code)
        .filter(|code| !code.contains(['.', '/']))
        .collect();
    assert_eq!(codes.len(), 6);
    for code in codes {
        let quoted = format!("\"{code}\"");
        assert!(
            crates.iter().any(|text| text.contains(&quoted)),
            "{code} is the code of no error"
        );
    }
}
