//! The guard itself: it fails for what it looks for, and for nothing else.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    sync::Arc,
    time::Duration,
};

use mx_crypto_store::backend::{Backend as _, Batch, Memory, MemoryDisk};
use mx_e2ee::{Event, Message};
use mx_test_homeserver::{Homeserver, Invariant};
use serde_json::json;

use crate::world::{Pair, World, inbox::Inbox, leaks::Watched, pair, watchdog};

/// What a world says when it goes; nothing when it is content.
fn last_words(world: World) -> Option<String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let ended = catch_unwind(AssertUnwindSafe(|| drop(world)));
    std::panic::set_hook(hook);
    let payload = ended.err()?;
    payload.downcast_ref::<String>().cloned()
}

/// One test, since they share the hook of panics and what all secrets share.
#[tokio::test]
async fn a_world_fails_for_what_leaks_and_for_what_is_violated() {
    assert_eq!(last_words(World::new()), None);

    let world = World::new();
    let canary = world.canary();
    tracing::trace!(text = %canary, "somebody logs what was said");
    let words = last_words(world).unwrap();
    assert!(words.contains("a plaintext is in a log line"), "{words}");
    assert!(!words.contains(&canary), "and the failure does not repeat it: {words}");

    let world = World::new();
    let user = world.register("alice", "password");
    world.examine(&std::io::Error::other(world.token(&user, "DEVICE")));
    let words = last_words(world).unwrap();
    assert!(words.contains("an access token is in an error"), "{words}");

    let world = World::new();
    let directory = Arc::new(tempfile::tempdir().unwrap());
    world.keep(&directory);
    std::fs::write(directory.path().join("session.json"), "{}").unwrap();
    std::fs::create_dir(directory.path().join("store")).unwrap();
    std::fs::write(directory.path().join("store").join("rows"), [7; 40]).unwrap();
    let words = last_words(world).unwrap();
    assert_eq!(words, "I3, I4: the store key is in the file rows");

    let world = World::new();
    let watched = Watched(Memory::open(&MemoryDisk::new()).unwrap());
    let text = format!("{{\"body\":\"{}\"}}", world.canary());
    watched.commit(Batch::new().put(b"row".to_vec(), text)).await.unwrap();
    assert!(
        last_words(world)
            .unwrap()
            .contains("a plaintext is in a row of the disk")
    );

    let world = World::new();
    let user = world.register("alice", "password");
    let token = world.token(&user, "DEVICE");
    let uri = format!("http://localhost/_matrix/client/v3/joined_rooms?access_token={token}");
    let request = http::Request::get(uri).body(bytes::Bytes::new()).unwrap();
    let _answer = world.handle(&request);
    let other = world.clone();
    assert!(last_words(other).unwrap().contains("I4: nobody"), "every handle looks");
    world.excuse(Invariant::I4);
    assert_eq!(last_words(world), None, "it was on purpose");
}

#[tokio::test]
async fn what_is_said_arrives_and_its_canary_stays_between_the_two() {
    let Pair { server, bob, room, .. } = pair().await;
    server.say(&room, "hidden").await.unwrap();
    let read = bob.messages().await;
    assert_eq!(read[0].body(), Some("hidden"));
    assert!(read[0].content["canary"].as_str().unwrap().len() >= 32);
}

/// Ends the process when it is asked to hang, and otherwise sees to it that a process of its own ends.
#[test]
fn what_hangs_is_ended_with_its_name() {
    const HANG: &str = "MX_TEST_HANGS";
    let name = "world_guard::what_hangs_is_ended_with_its_name";
    if std::env::var_os(HANG).is_some() {
        let _world = World::watch(Homeserver::new(), false, Duration::ZERO);
        loop {
            std::thread::park();
        }
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(HANG, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&format!("watchdog: {name} hangs")), "{said}");
    assert_eq!(watchdog::test_name(), name);
}

fn message(text: &str, event: &str) -> Event {
    let message: Message = serde_json::from_value(json!({
        "room_id": "!r:s", "event_id": event, "sender": "@u:s", "origin_server_ts": 1, "type": "m.room.message",
        "event_type": "m.room.message", "content": {"body": text}, "encryption": null,
        "plaintext_in_encrypted_room": false,
    }))
    .unwrap();
    Event::Message(message)
}

#[test]
fn an_inbox_may_repeat_until_it_is_acknowledged() {
    let mut inbox = Inbox::default();
    inbox.given(&[message("one", "$1")]);
    inbox.given(&[message("one", "$1"), message("two", "$2")]);
    inbox.acknowledging();
    inbox.restarted();
    // The acknowledgement of a process that ended is not known to have been carried out.
    inbox.acknowledging();
    inbox.acknowledged();
    inbox.given(&[message("two", "$2")]);
    assert_eq!(inbox.texts(), ["one", "two"]);
}

#[test]
#[should_panic(expected = "acknowledged and is given again")]
fn an_inbox_that_repeats_after_the_acknowledgement_fails() {
    let mut inbox = Inbox::default();
    inbox.given(&[message("one", "$1")]);
    inbox.acknowledging();
    inbox.acknowledged();
    inbox.given(&[message("one", "$1")]);
}

#[test]
#[should_panic(expected = "came in two events")]
fn an_inbox_that_gives_one_text_in_two_events_fails() {
    let mut inbox = Inbox::default();
    inbox.given(&[message("one", "$1"), message("one", "$2")]);
}
