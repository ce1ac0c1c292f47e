//! A logout that leaves nothing: what it destroys, and what it does not touch. Row ST-47.

use std::{collections::BTreeMap, fs, path::Path};

use mx_e2ee::Client;
use mx_test_homeserver::Fault;

use crate::{attachments::names, cli::Shell, world::World};

/// Every file under a directory.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if !path.ends_with("session.lock") {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

async fn login(world: &World, directory: &Path) -> Client {
    Client::builder()
        .homeserver("http://localhost")
        .transport(world.transport())
        .directory(directory)
        .login("alice", "password")
        .await
        .unwrap()
}

#[tokio::test]
async fn st_47_a_wipe_whose_logout_failed_touches_nothing() {
    let world = World::new();
    let user = world.register("alice", "password");
    world.tokens_last(std::time::Duration::from_secs(300));
    let here = tempfile::tempdir().unwrap();
    login(&world, here.path()).await.logout().await.unwrap();
    let client = login(&world, here.path()).await;
    let device = client.device_id().to_owned();
    client.close().await.unwrap();
    let before = files(here.path());
    assert!(before.contains_key("pickle.key") && before.contains_key("session.json"));
    let wipe = || {
        let builder = Client::builder().transport(world.transport()).directory(here.path());
        builder.logout_and_wipe()
    };
    for fault in [
        Fault::drop_before("/logout"),
        Fault::status("/logout", 401, "<html>who are you?</html>"),
        Fault::status("/logout", 403, r#"{"errcode":"M_FORBIDDEN","error":"no"}"#),
        Fault::status("/logout", 503, ""),
        // The device is still there.
        Fault::status(
            "/logout",
            401,
            r#"{"errcode":"M_UNKNOWN_TOKEN","error":"","soft_logout":true}"#,
        )
        .times(2),
    ] {
        world.fault(fault.clone());
        let error = wipe().await.unwrap_err();
        world.examine(&error);
        world.behave();
        let after = files(here.path());
        let but_the_login = |files: &BTreeMap<String, Vec<u8>>| {
            let mut files = files.clone();
            files.remove("session.json");
            files
        };
        assert_eq!(but_the_login(&after), but_the_login(&before), "{fault:?}");
        assert!(after.contains_key("session.json"), "{fault:?}");
        assert_eq!(world.devices_of(&user), [device.as_str()]);
    }
    let ended = wipe().await.unwrap().unwrap();
    assert_eq!(ended.device_id, device);
    assert!(names(here.path()).is_empty());
    assert!(world.devices_of(&user).is_empty());
    assert_eq!(wipe().await.unwrap_err().code(), "not_logged_in");
}

#[tokio::test]
async fn st_47_a_client_that_wipes_leaves_nothing_and_a_new_login_begins_anew() {
    let world = World::new();
    let user = world.register("alice", "password");
    let here = tempfile::tempdir().unwrap();
    let client = login(&world, here.path()).await;
    let first = client.device_id().to_owned();
    client.logout_and_wipe().await.unwrap();
    assert!(names(here.path()).is_empty());
    assert!(world.devices_of(&user).is_empty());
    let client = login(&world, here.path()).await;
    assert_ne!(client.device_id(), first);
    assert!(client.key_status().await.unwrap().published);
    // A device that was deleted elsewhere has nothing to be kept for, either.
    world.delete_device(&user, client.device_id());
    client.logout_and_wipe().await.unwrap();
    assert!(names(here.path()).is_empty());
}

#[tokio::test]
async fn st_47_a_store_without_a_login_stays() {
    let world = World::new();
    let _user = world.register("alice", "password");
    let here = tempfile::tempdir().unwrap();
    login(&world, here.path()).await.logout().await.unwrap();
    login(&world, here.path()).await.close().await.unwrap();
    fs::remove_file(here.path().join("session.json")).unwrap();
    let wipe = || {
        Client::builder()
            .transport(world.transport())
            .directory(here.path())
            .logout_and_wipe()
    };
    assert!(wipe().await.unwrap().is_none(), "what was put aside is destroyed");
    let mut left = names(here.path());
    left.retain(|name| name != "session.lock");
    assert_eq!(left, ["pickle.key", "store"]);
    assert_eq!(wipe().await.unwrap_err().code(), "not_logged_in");
}

#[tokio::test(flavor = "multi_thread")]
async fn st_47_mx_says_what_it_destroyed() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let login = ["login", "--homeserver", &uri, "--user", "alice"];
    shell.ok("alice", &login).await;
    let said = shell.ok("alice", &["logout", "--wipe"]).await;
    assert!(
        said.ends_with("is logged out, and its key and store are destroyed"),
        "{said}"
    );
    shell.ok("alice", &login).await;
    shell.ok("alice", &["logout"]).await;
    let said = shell.ok("alice", &["--json", "logout", "--wipe"]).await;
    assert_eq!(said, r#"{"logged_out":null,"user_id":null,"wiped":true}"#);
    let nothing = shell.run("alice", &["logout", "--wipe"]).await;
    assert_eq!(nothing.status.code(), Some(3));
    assert!(
        names(&shell.data.path().join("alice"))
            .iter()
            .all(|name| name == "session.lock")
    );
}
