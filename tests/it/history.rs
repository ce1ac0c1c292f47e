//! History shared on invitation, both ways (MSC4268): what goes, when it does, and what becomes of it after a kill.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use mx_e2ee::{Clock, Event, HistoryReceived, HistoryShared, Options, Room, Trust};
use mx_test_homeserver::Fault;
use ruma::room_id;
use serde_json::json;

use crate::{
    verification_cast::{settle, with_identity},
    world::{Device, World},
};

/// A room in which alice has said two things, and bob, who is not in it.
pub(crate) struct Past {
    pub(crate) server: World,
    pub(crate) alice: Device,
    pub(crate) bob: Device,
    pub(crate) room: Room,
}

pub(crate) async fn past() -> Past {
    let server = World::new();
    past_on(server).await
}

async fn past_on(server: World) -> Past {
    let alice = with_identity(Device::new(&server, "alice").await).await;
    let bob = with_identity(Device::new(&server, "bob").await).await;
    let room = alice.client.create_room(None, &[]).await.unwrap();
    alice.client.sync().await.unwrap();
    for text in ["one", "two"] {
        room.send_text(text).await.unwrap();
    }
    Past {
        server,
        alice,
        bob,
        room,
    }
}

/// What came of the history at a device that has just come in: the texts with their trust, and the report.
pub(crate) async fn came_in(device: &Device, room: &Room) -> (Vec<(String, Trust)>, Vec<Event>) {
    device.client.sync().await.unwrap();
    device.client.join(room.id().as_str()).await.unwrap();
    what_came(device).await
}

pub(crate) async fn what_came(device: &Device) -> (Vec<(String, Trust)>, Vec<Event>) {
    let (mut texts, mut others) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        for event in device.events().await {
            match event {
                Event::Message(message) => texts.push((
                    message.body().unwrap().to_owned(),
                    message.encryption.as_ref().unwrap().trust,
                )),
                Event::Invite(_) => {}
                other => others.push(other),
            }
        }
    }
    (texts, others)
}

/// A clock in the test's hands.
pub(crate) fn held_clock() -> (Arc<AtomicU64>, Options) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let clock = Arc::new(AtomicU64::new(u64::try_from(now).unwrap()));
    let mut options = Options::default();
    let held = Arc::clone(&clock);
    options.clock = Clock::from_fn(move || held.load(Ordering::SeqCst));
    (clock, options)
}

fn received(event: &Event) -> &HistoryReceived {
    match event {
        Event::HistoryReceived(received) => received,
        other => unreachable!("{other:?}"),
    }
}

fn texts(of: &[(String, Trust)]) -> Vec<&str> {
    of.iter().map(|(text, _)| text.as_str()).collect()
}

fn counts(shared: &HistoryShared) -> (usize, usize, usize) {
    (shared.room_keys, shared.withheld, shared.devices)
}

#[tokio::test]
async fn who_is_invited_reads_what_was_said_before() {
    for slides in [false, true] {
        let server = World::new();
        if slides {
            server.offer_sliding_sync();
        }
        let past = past_on(server).await;
        // On a task, as an app may do it.
        let (room, bob) = (past.room.clone(), past.bob.client.user_id().to_owned());
        let shared = tokio::spawn(async move { room.invite_with_history(&bob).await });
        let shared = shared.await.unwrap().unwrap();
        assert_eq!(counts(&shared), (1, 0, 1));
        let (read, others) = came_in(&past.bob, &past.room).await;
        assert_eq!(texts(&read), ["one", "two"]);
        assert!(read.iter().all(|(_, trust)| *trust == Trust::Imported), "{read:?}");
        assert_eq!(others.len(), 1, "{others:?}");
        let report = received(&others[0]);
        assert_eq!(report.from, past.alice.client.user_id());
        assert_eq!((report.room_keys, report.unusable, report.withheld), (1, 0, 0));
        // What is said from now on is as any message.
        past.alice.client.sync().await.unwrap();
        past.room.send_text("three").await.unwrap();
        let (read, _) = what_came(&past.bob).await;
        assert_eq!(read, [("three".to_owned(), Trust::CrossSigned)]);
    }
}

#[tokio::test]
async fn nothing_is_shared_without_being_asked_for() {
    let past = past().await;
    past.room.invite(past.bob.client.user_id()).await.unwrap();
    let (read, others) = came_in(&past.bob, &past.room).await;
    assert!(read.is_empty() && others.is_empty(), "{read:?} {others:?}");
    assert!(past.server.files().is_empty());
    assert_eq!(past.bob.client.waiting_counts().await.unwrap().waiting, 2);
    // It can be given later, too, for a day.
    let shared = past.room.share_history(past.bob.client.user_id()).await.unwrap();
    assert_eq!(counts(&shared), (1, 0, 1));
    let (read, _) = what_came(&past.bob).await;
    assert_eq!(texts(&read), ["one", "two"]);
}

/// Keys of a time when newcomers were not to read stay here, whatever the room says now.
#[tokio::test]
async fn what_newcomers_were_not_to_read_is_withheld() {
    let past = past().await;
    let set = |visibility: &'static str| {
        let content = json!({"history_visibility": visibility});
        let (room, by) = (past.room.id(), past.alice.client.user_id());
        past.server
            .set_state(room, by, "m.room.history_visibility", "", content);
    };
    set("joined");
    past.alice.client.sync().await.unwrap();
    past.room.send_text("not for newcomers").await.unwrap();
    let bob = past.bob.client.user_id().to_owned();
    let error = past.room.invite_with_history(&bob).await.unwrap_err();
    past.server.examine(&error);
    assert_eq!(error.code(), "history_not_for_newcomers");
    assert!(past.room.members().await.unwrap().len() == 1, "and nobody was invited");
    set("shared");
    past.alice.client.sync().await.unwrap();
    past.room.send_text("for all again").await.unwrap();
    let shared = past.room.invite_with_history(&bob).await.unwrap();
    assert_eq!(counts(&shared), (2, 1, 1));
    let (read, others) = came_in(&past.bob, &past.room).await;
    assert_eq!(texts(&read), ["one", "two", "for all again"]);
    assert_eq!(received(&others[0]).withheld, 1);
    let waiting = past.bob.client.waiting(0, 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    let reason = serde_json::to_value(&waiting[0].reason).unwrap();
    assert_eq!(reason["withheld"], "m.history_not_shared");
}

#[tokio::test]
async fn a_device_without_an_identity_neither_gives_nor_is_given() {
    let server = World::new();
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let room = alice.client.create_room(None, &[]).await.unwrap();
    alice.client.sync().await.unwrap();
    room.send_text("one").await.unwrap();
    let error = room.invite_with_history(bob.client.user_id()).await.unwrap_err();
    assert_eq!(error.code(), "history_not_cross_signed");
    let id = room.id().to_owned();
    drop(room);
    let alice = with_identity(alice).await;
    let room = alice.client.room(&id);
    let error = room.invite_with_history(bob.client.user_id()).await.unwrap_err();
    server.examine(&error);
    assert_eq!(error.code(), "history_no_devices");
    let (read, _) = came_in(&bob, &room).await;
    assert!(read.is_empty());
    // It is not tried for ever.
    server.behave();
    alice.client.sync().await.unwrap();
    assert!(alice.events().await.is_empty());
}

#[tokio::test]
async fn devices_that_we_blocked_and_users_who_may_not_are_given_nothing() {
    let past = past().await;
    let bob = past.bob.client.user_id().to_owned();
    settle(&[&past.bob]).await;
    let elsewhere = past
        .alice
        .client
        .create_room(None, std::slice::from_ref(&bob))
        .await
        .unwrap();
    past.bob.client.join(elsewhere.id().as_str()).await.unwrap();
    past.alice.client.sync().await.unwrap();
    elsewhere.send_text("hello").await.unwrap();
    past.alice
        .client
        .block_device(&bob, past.bob.client.device_id())
        .await
        .unwrap();
    let error = past.room.invite_with_history(&bob).await.unwrap_err();
    assert_eq!(error.code(), "history_no_devices");

    let id = past.room.id().to_owned();
    drop((past.room, elsewhere));
    let mut options = Options::default();
    options.allowed_recipients = Some([ruma::owned_user_id!("@carol:localhost")].into());
    let alice = past.alice.kill_and_open_with(options).await;
    let error = alice.client.room(&id).invite_with_history(&bob).await.unwrap_err();
    assert_eq!(error.code(), "recipient_not_allowed");
}

#[tokio::test]
async fn who_is_not_invited_is_given_nothing() {
    let past = past().await;
    let bob = past.bob.client.user_id().to_owned();
    let error = past.room.share_history(&bob).await.unwrap_err();
    past.server.examine(&error);
    assert_eq!(error.code(), "history_not_invited");
    // Nor where the invitation is refused.
    past.server
        .fault(Fault::status("/invite", 403, "{\"errcode\": \"M_FORBIDDEN\"}"));
    past.room.invite_with_history(&bob).await.unwrap_err();
    past.alice.client.sync().await.unwrap();
    assert!(past.server.files().is_empty());
    let error = past
        .alice
        .client
        .room(room_id!("!none:localhost"))
        .share_history(&bob)
        .await
        .unwrap_err();
    assert!(
        ["not_in_room", "room_not_encrypted"].contains(&error.code()),
        "{error:?}"
    );
}

/// The process ends at each of the requests in turn: the next one does the rest, and nothing goes twice.
#[tokio::test]
async fn a_kill_at_any_request_loses_no_history() {
    for path in [
        "/invite",
        "/media/v3/upload",
        "/keys/query",
        "/keys/claim",
        "/sendToDevice/",
    ] {
        for after in [false, true] {
            let Past {
                server,
                alice,
                bob,
                room,
            } = past().await;
            let fault = if after {
                Fault::drop_after(path)
            } else {
                Fault::drop_before(path)
            };
            server.fault(fault.for_ever());
            let id = room.id().to_owned();
            // Whatever it says: what counts is what the next process does.
            let told = room.invite_with_history(bob.client.user_id()).await;
            drop(room);
            server.behave();
            let alice = alice.kill_and_open().await;
            alice.client.sync().await.unwrap();
            let room = alice.client.room(&id);
            if path == "/invite" && !after {
                told.unwrap_err();
                assert!(
                    server.files().is_empty(),
                    "nobody was invited, and nobody was given anything"
                );
                continue;
            }
            let (read, others) = came_in(&bob, &room).await;
            assert_eq!(texts(&read), ["one", "two"], "{path} {after}: {told:?}");
            assert_eq!(others.len(), 1, "{path} {after}: {others:?}");
        }
    }
}

/// The homeserver does not give the bundle at first.
#[tokio::test]
async fn a_bundle_that_cannot_be_fetched_is_fetched_later() {
    let past = past().await;
    past.room.invite_with_history(past.bob.client.user_id()).await.unwrap();
    past.server
        .fault(Fault::status("/media/download/", 404, "{\"errcode\": \"M_NOT_FOUND\"}"));
    let (clock, options) = held_clock();
    let bob = past.bob.kill_and_open_with(options).await;
    let (read, others) = came_in(&bob, &past.room).await;
    assert!(read.is_empty() && others.is_empty());
    clock.fetch_add(59_000, Ordering::SeqCst);
    bob.client.sync().await.unwrap();
    assert!(bob.messages().await.is_empty(), "not at once");
    clock.fetch_add(2_000, Ordering::SeqCst);
    let (read, others) = what_came(&bob).await;
    assert_eq!(texts(&read), ["one", "two"]);
    let report = others.iter().find(|event| matches!(event, Event::HistoryReceived(_)));
    assert_eq!(received(report.unwrap()).room_keys, 1);
}

#[tokio::test]
async fn a_bundle_after_a_day_is_not_taken() {
    let past = past().await;
    past.room.invite(past.bob.client.user_id()).await.unwrap();
    let (clock, options) = held_clock();
    let bob = past.bob.kill_and_open_with(options).await;
    came_in(&bob, &past.room).await;
    clock.fetch_add(24 * 60 * 60 * 1000 + 1, Ordering::SeqCst);
    past.room.share_history(bob.client.user_id()).await.unwrap();
    let before = past.server.log().len();
    let (read, others) = what_came(&bob).await;
    assert!(read.is_empty(), "{read:?}");
    assert!(!others.iter().any(|event| matches!(event, Event::HistoryReceived(_))));
    let asked = past
        .server
        .log()
        .iter()
        .skip(before)
        .any(|request| request.path.contains("/media/download/"));
    assert!(!asked, "nothing is fetched");
}

#[tokio::test]
async fn who_does_not_want_histories_takes_none() {
    let past = past().await;
    let mut options = Options::default();
    assert!(options.accept_history);
    options.accept_history = false;
    let bob = past.bob.kill_and_open_with(options).await;
    past.room.invite_with_history(bob.client.user_id()).await.unwrap();
    let (read, others) = came_in(&bob, &past.room).await;
    assert!(read.is_empty() && others.is_empty());
    assert_eq!(bob.room_keys().await.len(), 0);
}

/// What was taken can be given on, and what was withheld stays withheld.
#[tokio::test]
async fn a_history_is_given_on() {
    let past = past().await;
    past.room.invite_with_history(past.bob.client.user_id()).await.unwrap();
    came_in(&past.bob, &past.room).await;
    let carol = with_identity(Device::new(&past.server, "carol").await).await;
    let bobs = past.bob.client.room(past.room.id());
    let shared = bobs.invite_with_history(carol.client.user_id()).await.unwrap();
    assert_eq!(counts(&shared), (1, 0, 1));
    let (read, others) = came_in(&carol, &past.room).await;
    assert_eq!(texts(&read), ["one", "two"]);
    assert_eq!(received(&others[0]).from, past.bob.client.user_id());
}
