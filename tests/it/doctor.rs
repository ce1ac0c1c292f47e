//! The checkup from outside: the disk, the store, the homeserver, the clock, the login; and that it works half broken.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mx_crypto_store::backend::{Backend, Batch, Memory};
use mx_e2ee::{Check, Checkup, Client, ClientBuilder, Finding, FindingCode, Findings, Looked, Severity};
use mx_test_homeserver::{Fault, Homeserver};

use crate::{
    identity::set_up,
    world::{Device, Pair, World, key, pair},
};

/// What is still there.
pub(crate) fn codes(found: &Findings) -> Vec<&'static str> {
    let standing = found.findings.iter().filter(|finding| !finding.mended);
    standing.map(|finding| finding.code.code()).collect()
}

pub(crate) fn finding(found: &Findings, code: FindingCode) -> &Finding {
    let finding = found.findings.iter().find(|finding| finding.code == code);
    finding.unwrap_or_else(|| unreachable!("{code:?} is not in {found:#?}"))
}

/// A pair with identities and a message in between, of which nothing is wrong.
pub(crate) async fn well() -> Pair {
    let pair = pair().await;
    set_up(&pair.alice.client).await;
    set_up(&pair.bob.client).await;
    pair.room.send_text("hello").await.unwrap();
    assert_eq!(pair.bob.bodies().await, ["hello"]);
    pair.alice.client.sync().await.unwrap();
    pair
}

/// A login on a disk, as `mx` has it.
fn on_disk(server: &Homeserver, directory: &Path) -> ClientBuilder {
    Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .directory(directory)
}

async fn logged_in() -> (World, tempfile::TempDir, Client) {
    let server = World::new();
    server.register("alice", "password");
    let directory = tempfile::tempdir().unwrap();
    let client = on_disk(&server, directory.path())
        .login("alice", "password")
        .await
        .unwrap();
    set_up(&client).await;
    client.sync().await.unwrap();
    (server, directory, client)
}

async fn look(server: &Homeserver, directory: &Path) -> Findings {
    on_disk(server, directory).doctor(Checkup::default()).await.unwrap()
}

async fn fix(server: &Homeserver, directory: &Path) -> Findings {
    on_disk(server, directory).doctor(Checkup::fixing()).await.unwrap()
}

#[tokio::test]
async fn where_everything_is_well_nothing_is_found_and_everything_was_looked_at() {
    let Pair { server, alice, bob, .. } = well().await;
    let log = server.log().len();
    for client in [&alice.client, &bob.client] {
        let found = client.doctor().await;
        assert_eq!(codes(&found), [""; 0], "{found:#?}");
        assert_eq!(found.worst(), None);
        let skipped: BTreeMap<_, _> = found
            .checks
            .iter()
            .filter(|(_, looked)| **looked != Looked::Yes)
            .collect();
        // The door without a socket sends no date.
        assert_eq!(skipped.into_keys().collect::<Vec<_>>(), [&Check::Clock]);
        assert_eq!(found.facts.encrypted_rooms, Some(1));
        assert_eq!(found.facts.one_time_keys, Some(50));
        assert_eq!(found.facts.fallback_key, Some(true));
        assert_eq!(found.facts.backed_up, found.facts.room_keys);
        assert!(found.facts.store_records.unwrap() > 10 && found.facts.store_schema.is_some());
        assert!(found.facts.free_bytes.unwrap() > 0);
    }
    let changed: Vec<String> = server.log()[log..]
        .iter()
        .filter(|exchange| exchange.method != "GET" && !exchange.path.ends_with("/keys/query"))
        .map(|exchange| exchange.path.clone())
        .collect();
    assert_eq!(changed, [""; 0], "it only looks");
}

#[tokio::test]
async fn a_profile_that_others_can_read_is_found_and_closed() {
    let (server, here, client) = logged_in().await;
    client.close().await.unwrap();
    assert_eq!(codes(&look(&server, here.path()).await), [""; 0]);
    let open = [("session.json", 0o640), ("pickle.key", 0o604), ("store", 0o755)];
    for (name, mode) in open {
        fs::set_permissions(here.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let found = look(&server, here.path()).await;
    let first = finding(&found, FindingCode::ProfileReadable);
    assert_eq!(first.details.len(), 3, "{first:?}");
    assert!(first.fixable && first.details[0].contains("mode 0640"));
    // The key and the login are refused like that.
    assert!(found.has(FindingCode::LoginUnreadable), "{found:#?}");
    let fixed = fix(&server, here.path()).await;
    assert_eq!(codes(&fixed), [""; 0], "{fixed:#?}");
    assert!(finding(&fixed, FindingCode::ProfileReadable).mended);
    for (name, _) in open {
        let mode = fs::metadata(here.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_is_found() {
    let (server, here, client) = logged_in().await;
    client.close().await.unwrap();
    let mut checkup = Checkup::default();
    checkup.least_free_bytes = u64::MAX;
    let found = on_disk(&server, here.path()).doctor(checkup).await.unwrap();
    assert_eq!(codes(&found), ["disk_space"]);
    assert_eq!(found.worst(), Some(Severity::Warning));
}

#[tokio::test]
async fn without_a_login_or_with_a_damaged_one_that_is_said() {
    let server = World::new();
    let here = tempfile::tempdir().unwrap();
    let found = look(&server, here.path()).await;
    assert_eq!(codes(&found), ["not_logged_in"]);
    assert!(matches!(&found.checks[&Check::Store], Looked::No { because } if because == "there is no login"));
    let found = look(&server, &here.path().join("nowhere")).await;
    assert_eq!(codes(&found), ["not_logged_in"]);
    assert!(!here.path().join("nowhere").exists(), "nothing is made by looking");

    let (server, here, client) = logged_in().await;
    client.close().await.unwrap();
    let file = here.path().join("session.json");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..40]).unwrap();
    let found = look(&server, here.path()).await;
    assert_eq!(codes(&found), ["login_unreadable"]);
    assert_eq!(
        finding(&found, FindingCode::LoginUnreadable).cause.as_deref(),
        Some("session_file")
    );
}

#[tokio::test]
async fn beside_another_process_the_rest_is_looked_at() {
    let (server, here, client) = logged_in().await;
    let found = look(&server, here.path()).await;
    assert_eq!(codes(&found), ["store_in_use"]);
    assert_eq!(found.worst(), Some(Severity::Note));
    assert_eq!(
        found.checks[&Check::Token],
        Looked::Yes,
        "the login is beside the store"
    );
    assert!(matches!(&found.checks[&Check::Keys], Looked::No { .. }));
    client.close().await.unwrap();
    assert_eq!(codes(&look(&server, here.path()).await), [""; 0]);
}

#[tokio::test]
async fn a_store_that_does_not_open_is_said_why() {
    let (server, here, client) = logged_in().await;
    client.close().await.unwrap();
    let file = here.path().join("pickle.key");
    let key = fs::read(&file).unwrap();
    fs::write(&file, [7; 32]).unwrap();
    let found = look(&server, here.path()).await;
    assert_eq!(codes(&found), ["store_unopened"]);
    assert_eq!(
        finding(&found, FindingCode::StoreUnopened).cause.as_deref(),
        Some("store_wrong_key")
    );
    assert_eq!(found.checks[&Check::Server], Looked::Yes);
    assert!(
        matches!(&found.checks[&Check::Token], Looked::No { .. }),
        "the token is sealed with that key"
    );
    fs::write(&file, key).unwrap();
    assert_eq!(codes(&look(&server, here.path()).await), [""; 0]);
}

#[tokio::test]
async fn damage_in_the_store_is_found() {
    let server = World::new();
    server.register("alice", "password");
    let backend: Arc<dyn Backend> = Arc::new(Memory::new());
    let here = tempfile::tempdir().unwrap();
    let client = on_disk(&server, here.path())
        .backend(Arc::clone(&backend), key())
        .login("alice", "password")
        .await
        .unwrap();
    set_up(&client).await;
    client.sync().await.unwrap();
    assert_eq!(codes(&client.doctor().await), [""; 0]);
    let rows = backend.scan(&[], None, 1000).await.unwrap();
    // One that nothing else is written with.
    let (row, mut value) = rows[rows.len() / 2].clone();
    let last = value.len() - 1;
    value[last] ^= 1;
    backend.commit(Batch::new().put(row, value)).await.unwrap();
    let found = client.doctor().await;
    let damage = finding(&found, FindingCode::StoreDamaged);
    assert!(damage.details[0].ends_with(" records"), "{damage:?}");
    assert!(damage.details.iter().any(|line| line.contains("Corrupt")), "{damage:?}");
}

#[tokio::test]
async fn a_homeserver_that_is_not_there_leaves_the_disk_to_look_at() {
    let (server, here, client) = logged_in().await;
    client.close().await.unwrap();
    server.fault(Fault::drop_before("").for_ever());
    let found = look(&server, here.path()).await;
    assert_eq!(codes(&found), ["server_unreachable"]);
    assert_eq!(found.checks[&Check::Store], Looked::Yes);
    assert_eq!(found.checks[&Check::Undecryptable], Looked::Yes);
    for check in [Check::Server, Check::Token, Check::Keys, Check::Rooms] {
        assert!(matches!(&found.checks[&check], Looked::No { .. }), "{check:?}");
    }
    assert!(finding(&found, FindingCode::ServerUnreachable).cause.is_some());
    server.behave();
    assert_eq!(codes(&look(&server, here.path()).await), [""; 0]);
}

#[tokio::test]
async fn a_homeserver_of_another_age_is_found() {
    let Pair { server, alice, .. } = well().await;
    server.fault(Fault::body("/_matrix/client/versions", r#"{"versions": ["v7.1"]}"#).for_ever());
    let found = alice.client.doctor().await;
    assert!(found.has(FindingCode::ServerVersions), "{found:#?}");
    assert_eq!(finding(&found, FindingCode::ServerVersions).details, ["it names v7.1"]);
}

#[tokio::test]
async fn clocks_that_differ_are_found() {
    let Pair { server, alice, .. } = well().await;
    for (differ, ahead, expected) in [
        (Duration::from_secs(3600), true, vec!["clock_skew"]),
        (Duration::from_secs(3600), false, vec!["clock_skew"]),
        (Duration::from_secs(60), true, vec![]),
    ] {
        server.rewrite("/versions", move |_, mut answer| {
            let now = SystemTime::now();
            let date = if ahead { now - differ } else { now + differ };
            let date = httpdate::fmt_http_date(date).parse().unwrap();
            answer.headers_mut().insert("date", date);
            answer
        });
        let found = alice.client.doctor().await;
        assert_eq!(codes(&found), expected, "{found:#?}");
        assert_eq!(found.facts.clock_ahead_ms.unwrap() > 0, ahead);
        assert_eq!(found.checks[&Check::Clock], Looked::Yes);
        server.behave();
    }
}

#[tokio::test]
async fn a_token_that_is_refused_or_of_another_is_found() {
    let Pair { server, alice, .. } = well().await;
    let other = r#"{"user_id": "@alice:localhost", "device_id": "ANOTHER"}"#;
    server.fault(Fault::body("/account/whoami", other));
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["login_of_another"]);
    assert!(finding(&found, FindingCode::LoginOfAnother).details[0].contains("ANOTHER"));
    server.fault(Fault::status(
        "/account/whoami",
        401,
        r#"{"errcode": "M_UNKNOWN_TOKEN", "error": "no", "soft_logout": true}"#,
    ));
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["login_refused"]);
    assert!(matches!(&found.checks[&Check::Keys], Looked::No { .. }));
    assert_eq!(codes(&alice.client.doctor().await), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_said() {
    let Pair { server, alice, .. } = well().await;
    server.fault(Fault::status("/joined_rooms", 400, "{}"));
    let found = alice.client.doctor().await;
    assert_eq!(codes(&found), ["check_failed"]);
    let failed = finding(&found, FindingCode::CheckFailed);
    assert_eq!(failed.subject.as_deref(), Some("rooms"));
    assert!(matches!(&found.checks[&Check::Rooms], Looked::No { .. }));
}

#[tokio::test]
async fn a_device_that_was_ended_is_found_with_the_store_closed() {
    let Device {
        client,
        disk,
        directory,
        ..
    } = {
        let Pair { server, alice, .. } = well().await;
        server.delete_device(alice.client.user_id(), alice.client.device_id());
        assert!(alice.client.sync().await.is_err());
        let found = alice.client.doctor().await;
        assert_eq!(codes(&found), ["login_refused"]);
        alice.client.clone().close().await.unwrap();
        drop(server);
        alice
    };
    drop(client);
    let server = World::new();
    let found = crate::world::builder(&server, &disk)
        .directory(directory.path())
        .doctor(Checkup::default())
        .await
        .unwrap();
    assert!(found.has(FindingCode::DeviceDeleted), "{found:#?}");
    assert_eq!(found.worst(), Some(Severity::Error));
}
