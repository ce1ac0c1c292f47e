//! A trust manifest in a file counts as it is now: for the next send, for what comes next, and also where it is broken.

use std::{fs, path::Path};

use mx_e2ee::{Drift, FindingCode, Health, ManifestFile, Options, Trust};
use serde_json::{Value, json};

use crate::{
    manifest::{drifts, fingerprint},
    world::{Device, Pair, pair},
};

fn at(path: &Path) -> Options {
    let mut options = Options::default();
    options.trust_manifest_file = Some(ManifestFile::new(path));
    options
}

/// As people who care do it.
fn replace(path: &Path, manifest: &Value) {
    let part = path.with_extension("part");
    fs::write(&part, manifest.to_string()).unwrap();
    fs::rename(part, path).unwrap();
}

fn listing(device: &Device, fingerprint: &str) -> Value {
    let devices = json!({device.client.device_id().as_str(): fingerprint});
    json!({"version": 1, "users": {"@bob:localhost": {"devices": devices}}})
}

#[tokio::test]
async fn a_change_of_the_file_counts_for_the_next_send_and_the_next_message() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trust.json");
    let (right, wrong) = (fingerprint(&bob).await, fingerprint(&alice).await);
    replace(&path, &listing(&bob, &right));
    let alice = alice.kill_and_open_with(at(&path)).await;
    let room = alice.client.room(&room_id);
    room.send_text("one").await.unwrap();
    room.send_text("two").await.unwrap();
    bobs_room.send_text("his").await.unwrap();
    let messages = alice.messages().await;
    assert_eq!(messages[0].encryption.as_ref().unwrap().trust, Trust::Verified);

    replace(&path, &listing(&bob, &wrong));
    let refused = server.say(&room, "never").await.unwrap_err();
    assert_eq!(refused.code(), "trust_manifest_drift");
    let told = alice.events().await;
    assert!(matches!(drifts(&told)[..], [Drift::Fingerprint { .. }]), "{told:?}");
    bobs_room.send_text("his second").await.unwrap();
    let messages = alice.messages().await;
    assert_eq!(messages[0].encryption.as_ref().unwrap().trust, Trust::NotListed);

    replace(&path, &json!({"version": 1, "users": {}}));
    let refused = server.say(&room, "never").await.unwrap_err();
    assert!(
        refused.to_string().contains("@bob:localhost is not listed"),
        "{refused}"
    );

    replace(&path, &listing(&bob, &right));
    room.send_text("three").await.unwrap();
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
    assert_eq!(bob.bodies().await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_listener_that_sends_nothing_is_told_of_a_change() {
    let Pair { alice, bob, room, .. } = pair().await;
    room.send_text("one").await.unwrap();
    drop(room);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trust.json");
    let (right, wrong) = (fingerprint(&bob).await, fingerprint(&alice).await);
    replace(&path, &listing(&bob, &right));
    let alice = alice.kill_and_open_with(at(&path)).await;
    alice.client.sync().await.unwrap();
    assert!(drifts(&alice.events().await).is_empty());
    replace(&path, &listing(&bob, &wrong));
    alice.client.sync().await.unwrap();
    let told = alice.events().await;
    assert!(matches!(drifts(&told)[..], [Drift::Fingerprint { .. }]), "{told:?}");
    alice.client.sync().await.unwrap();
    assert!(drifts(&alice.events().await).is_empty(), "told once");
    // Other words, and a start: nothing new.
    fs::write(&path, format!("\n{:#}\n", listing(&bob, &wrong))).unwrap();
    alice.client.sync().await.unwrap();
    assert!(drifts(&alice.events().await).is_empty());
    let alice = alice.kill_and_open_with(at(&path)).await;
    alice.client.sync().await.unwrap();
    assert!(drifts(&alice.events().await).is_empty());
    replace(&path, &listing(&bob, &right));
    alice.client.sync().await.unwrap();
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
}

#[tokio::test]
async fn a_broken_file_stops_sends_and_syncs_until_it_is_mended() {
    let Pair {
        server,
        alice,
        bob,
        room,
        bobs_room,
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trust.json");
    let good = listing(&bob, &fingerprint(&bob).await);
    replace(&path, &good);
    let alice = alice.kill_and_open_with(at(&path)).await;
    let room = alice.client.room(&room_id);
    room.send_text("one").await.unwrap();
    bobs_room.send_text("while it is broken").await.unwrap();
    let broken: [(&dyn Fn(), &str); 4] = [
        (&|| fs::write(&path, "{").unwrap(), "trust_manifest_invalid"),
        (&|| fs::write(&path, [0xff, 0xfe]).unwrap(), "trust_manifest_invalid"),
        (&|| fs::write(&path, "").unwrap(), "trust_manifest_invalid"),
        (&|| fs::remove_file(&path).unwrap(), "trust_manifest_unreadable"),
    ];
    for (break_it, code) in broken {
        break_it();
        let refused = server.say(&room, "never").await.unwrap_err();
        assert_eq!(refused.code(), code);
        assert!(refused.to_string().contains("trust.json"), "{refused}");
        assert_eq!(alice.client.sync().await.unwrap_err().code(), code);
        let Health::Degraded { problems } = alice.client.health().await.unwrap() else {
            unreachable!("{code}")
        };
        assert_eq!(problems[0].code, "trust_manifest_unreadable");
        let found = alice.client.doctor().await;
        assert!(found.has(FindingCode::TrustManifestUnreadable), "{found:?}");
    }
    replace(&path, &good);
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
    room.send_text("two").await.unwrap();
    let bodies = alice.bodies().await;
    assert_eq!(bodies, ["while it is broken"], "it waited, and comes once");
    assert_eq!(bob.bodies().await, ["one", "two"]);
}

#[tokio::test]
async fn a_file_may_be_missing_where_that_was_said() {
    let Pair {
        server,
        alice,
        bob,
        room,
        ..
    } = pair().await;
    let room_id = room.id().to_owned();
    drop(room);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trust.json");
    let mut options = Options::default();
    options.trust_manifest_file = Some(ManifestFile::if_any(&path));
    let alice = alice.kill_and_open_with(options).await;
    let room = alice.client.room(&room_id);
    room.send_text("one").await.unwrap();
    replace(&path, &listing(&bob, &fingerprint(&alice).await));
    let refused = server.say(&room, "never").await.unwrap_err();
    assert_eq!(refused.code(), "trust_manifest_drift");
    fs::write(&path, "[]").unwrap();
    let refused = server.say(&room, "never").await.unwrap_err();
    assert_eq!(refused.code(), "trust_manifest_invalid");
    fs::remove_file(&path).unwrap();
    room.send_text("two").await.unwrap();
    assert_eq!(alice.client.health().await.unwrap(), Health::Ok);
    assert_eq!(bob.bodies().await, ["one", "two"]);
}
