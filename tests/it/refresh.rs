//! A login that outlives its access token. Rows NW-23 and NW-24.

use std::{sync::Arc, time::Duration};

use mx_e2ee::{Attachment, Client};
use mx_test_homeserver::{Fault, Homeserver};
use mx_transport::Retry;
use serde_json::Value;

use crate::{
    attachments::{code, received, requests},
    cli::Shell,
    world::{Device, Pair, World, builder, key},
};

const LIFETIME: Duration = Duration::from_secs(300);

/// The file of a login, as it is on the disk.
fn file_of(device: &Device) -> Value {
    let text = std::fs::read_to_string(device.directory.path().join("session.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Alice, whose tokens can be renewed, with somebody to talk to.
pub(crate) async fn renewable() -> Pair {
    let server = World::new();
    server.tokens_last(LIFETIME);
    let alice = Device::new(&server, "alice").await;
    let bob = Device::new(&server, "bob").await;
    let invited = [bob.client.user_id().to_owned()];
    let room = alice.client.create_room(None, &invited).await.unwrap();
    let bobs_room = bob.client.join(room.id().as_str()).await.unwrap();
    Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    }
}

pub(crate) fn expire(server: &Homeserver, device: &Client, soft: bool) {
    server.expire_token(device.user_id(), device.device_id(), soft);
}

#[tokio::test]
async fn a_login_goes_on_with_the_token_that_its_file_has() {
    let pair = renewable().await;
    let before = file_of(&pair.alice);
    assert!(before["sealed_tokens"].is_string());
    for soft in [true, false] {
        expire(&pair.server, &pair.alice.client, soft);
        pair.room.send_text("one").await.unwrap();
    }
    assert_eq!(requests(&pair.server, "/refresh"), 2);
    let after = file_of(&pair.alice);
    assert_ne!(before["sealed_tokens"], after["sealed_tokens"]);
    for field in ["homeserver", "user_id", "device_id"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    // The next process goes on with it, and has nothing to renew.
    drop(pair.room);
    let alice = pair.alice.kill_and_open().await;
    alice.client.sync().await.unwrap();
    assert_eq!(requests(&pair.server, "/refresh"), 2);
    assert_eq!(pair.bob.bodies().await, ["one", "one"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_expires() {
    let pair = renewable().await;
    tokio::time::advance(LIFETIME - Duration::from_secs(20)).await;
    pair.alice.client.sync().await.unwrap();
    assert_eq!(requests(&pair.server, "/refresh"), 1);
    let refused = |server: &Homeserver| {
        server
            .log()
            .iter()
            .filter(|exchange| exchange.status == Some(401))
            .count()
    };
    assert_eq!(refused(&pair.server), 0);
}

#[tokio::test]
async fn a_process_beside_another_one_and_its_files_use_one_login() {
    let pair = renewable().await;
    let beside = Client::builder()
        .transport(pair.server.transport())
        .key(key())
        .directory(pair.bob.directory.path());
    let beside = beside.files().await.unwrap();
    expire(&pair.server, &pair.alice.client, true);
    let file = Attachment::from_bytes("ring.bin", vec![7; 5000]);
    pair.room.send_attachment(file).await.unwrap();
    assert_eq!(requests(&pair.server, "/refresh"), 1);
    expire(&pair.server, &pair.bob.client, true);
    let file = received(&pair.bob).await;
    assert_eq!(requests(&pair.server, "/refresh"), 2);
    // It began with tokens that were replaced, and finds the new ones.
    let place = tempfile::tempdir().unwrap();
    beside.download(&file, place.path().join("one")).await.unwrap();
    assert_eq!(requests(&pair.server, "/refresh"), 2);
    // And the other way round.
    expire(&pair.server, &pair.bob.client, false);
    beside.download(&file, place.path().join("two")).await.unwrap();
    pair.bob.client.sync().await.unwrap();
    assert_eq!(requests(&pair.server, "/refresh"), 3);
    assert_eq!(std::fs::read(place.path().join("two")).unwrap(), vec![7; 5000]);
}

#[tokio::test]
async fn nw_23_a_refusal_of_something_before_the_homeserver_is_no_logout() {
    let pair = renewable().await;
    let before = file_of(&pair.alice);
    for (status, body) in [
        (401, "<html>who are you?</html>"),
        (401, r#"{"error":"proxy"}"#),
        (403, "<html>sign in to this network</html>"),
    ] {
        pair.server.fault(Fault::status("/sync", status, body));
        assert_eq!(
            code(pair.alice.client.sync().await),
            "homeserver_refused",
            "{status} {body}"
        );
        // It is in the way of a renewal, too.
        expire(&pair.server, &pair.alice.client, true);
        pair.server.fault(Fault::status("/refresh", status, body));
        assert_eq!(
            code(pair.alice.client.sync().await),
            "homeserver_refused",
            "{status} {body}"
        );
        assert_eq!(file_of(&pair.alice)["user_id"], before["user_id"]);
        pair.alice.client.sync().await.unwrap();
    }
    drop(pair.room);
    let alice = pair.alice.kill_and_open().await;
    pair.bobs_room.send_text("there").await.unwrap();
    assert_eq!(alice.bodies().await, ["there"]);
}

#[tokio::test(start_paused = true)]
async fn nw_24_a_token_that_expires_between_two_attempts_of_a_send_leaves_one_event() {
    let pair = renewable().await;
    let Device {
        client,
        disk,
        directory,
        ..
    } = pair.alice;
    let user = client.user_id().to_owned();
    let device = client.device_id().to_owned();
    client.close().await.unwrap();
    let alice = builder(&pair.server, &disk)
        .directory(directory.path())
        .transport(Arc::new(Retry::new(pair.server.transport())))
        .open()
        .await
        .unwrap();
    alice.room(pair.room.id()).send_text("one").await.unwrap();
    // The event is taken; a proxy loses the answer, and meanwhile the token expires.
    let server = Homeserver::clone(&pair.server);
    let once = std::sync::atomic::AtomicBool::new(true);
    pair.server.rewrite("/send/m.room.encrypted/", move |_, answer| {
        if !once.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return answer;
        }
        server.expire_token(&user, &device, true);
        let mut lost = http::Response::new(bytes::Bytes::new());
        *lost.status_mut() = http::StatusCode::BAD_GATEWAY;
        lost
    });
    let receipt = alice.room(pair.room.id()).send_text("two").await.unwrap();
    let log = pair.server.log();
    let puts: Vec<_> = log
        .iter()
        .filter(|exchange| exchange.path.contains("/send/m.room.encrypted/"))
        .collect();
    let statuses: Vec<_> = puts.iter().map(|put| put.status).collect();
    assert_eq!(statuses, [Some(200), Some(502), Some(401), Some(200)]);
    assert!(
        puts[1..].iter().all(|put| put.path == puts[1].path),
        "the same transaction id"
    );
    assert!(puts[1..].iter().all(|put| put.request_body == puts[1].request_body));
    assert_eq!(puts[3].response_body["event_id"], receipt.event_id.as_str());
    assert_eq!(pair.bob.bodies().await, ["one", "two"]);
}

#[tokio::test]
async fn nw_24_an_event_that_an_earlier_process_put_is_put_again_with_a_new_token_as_the_same() {
    let pair = renewable().await;
    pair.room.send_text("one").await.unwrap();
    pair.server.fault(Fault::drop_after("/send/m.room.encrypted/"));
    assert_eq!(code(pair.room.send_text("two").await), "send_pending");
    expire(&pair.server, &pair.alice.client, true);
    let room = pair.room.id().to_owned();
    drop(pair.room);
    let alice = pair.alice.kill_and_open().await;
    alice.client.room(&room).send_text("three").await.unwrap();
    assert_eq!(requests(&pair.server, "/refresh"), 1);
    assert_eq!(pair.bob.bodies().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_renewal_whose_answer_is_lost_is_repeated_with_the_same_token() {
    let pair = renewable().await;
    for fault in [
        Fault::drop_after("/refresh"),
        Fault::drop_before("/refresh"),
        Fault::truncate("/refresh", 9),
        Fault::body("/refresh", "<html>"),
        Fault::status("/refresh", 503, ""),
    ] {
        expire(&pair.server, &pair.alice.client, true);
        pair.server.fault(fault);
        let error = pair.alice.client.sync().await.unwrap_err();
        pair.server.examine(&error);
        assert!(!["logged_out", "soft_logged_out"].contains(&error.code()), "{error}");
        pair.alice.client.sync().await.unwrap();
    }
    // A proxy that repeats it does no harm.
    expire(&pair.server, &pair.alice.client, true);
    pair.server.fault(Fault::duplicate("/refresh"));
    pair.alice.client.sync().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn tokens_that_cannot_be_kept_are_not_used() {
    let pair = renewable().await;
    let before = file_of(&pair.alice);
    let staged = pair.alice.directory.path().join("session.json.new");
    std::fs::create_dir(&staged).unwrap();
    expire(&pair.server, &pair.alice.client, true);
    let error = pair.alice.client.sync().await.unwrap_err();
    pair.server.examine(&error);
    assert_eq!(error.code(), "token_not_kept");
    assert_eq!(file_of(&pair.alice), before);
    std::fs::remove_dir(&staged).unwrap();
    drop(pair.room);
    let alice = pair.alice.kill_and_open().await;
    alice.client.sync().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_in_what_a_whole_process_logs_while_it_renews() {
    let shell = Shell::new().await;
    shell.server.tokens_last(LIFETIME);
    let uri = shell.listening.uri();
    let login = ["login", "--homeserver", &uri, "--user", "alice"];
    let expire = || {
        let alice = ruma::user_id!("@alice:localhost");
        let device = shell.server.devices_of(alice).remove(0);
        shell.server.expire_token(alice, device.as_str().into(), true);
    };
    let mut said = vec![shell.run_logging("alice", &login, "").await];
    for fault in [
        None,
        Some(Fault::body("/refresh", r#"{"access_token":["x"],"expires_in_ms":"x"}"#)),
    ] {
        expire();
        fault.into_iter().for_each(|fault| shell.server.fault(fault));
        said.push(shell.run_logging("alice", &["listen", "--once"], "").await);
    }
    assert_eq!(requests(&shell.server, "/refresh"), 2);
    let renewed = String::from_utf8_lossy(&said[1].stderr).into_owned();
    assert!(renewed.contains("the access token was renewed") && renewed.contains("TRACE"));
    assert!(String::from_utf8_lossy(&said[2].stderr).contains("unreadable_answer"));
    for output in said {
        for bytes in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(bytes).contains("-of-the-test-homeserver"));
        }
    }
}
