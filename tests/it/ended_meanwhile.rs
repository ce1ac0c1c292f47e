//! A logout that another process overtakes: it ends the login that it read, and touches no other one.

use std::{fs, fs::File, path::Path, time::Duration};

use mx_e2ee::{Client, ClientBuilder};
use mx_test_homeserver::Homeserver;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::World;

fn at(server: &Homeserver, directory: &Path) -> ClientBuilder {
    Client::builder()
        .homeserver("http://localhost")
        .transport(server.transport())
        .directory(directory)
}

/// A login whose lock somebody else has.
struct Held {
    server: World,
    here: TempDir,
    lock: File,
}

async fn held() -> Held {
    let server = World::new();
    server.register("alice", "password");
    let here = tempfile::tempdir().unwrap();
    let client = at(&server, here.path()).login("alice", "password").await.unwrap();
    client.close().await.unwrap();
    let lock = File::create(here.path().join("session.lock")).unwrap();
    lock.lock().unwrap();
    Held { server, here, lock }
}

impl Held {
    fn login(&self) -> Value {
        let text = fs::read_to_string(self.here.path().join("session.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn write(&self, login: &Value) {
        fs::write(self.here.path().join("session.json"), login.to_string()).unwrap();
    }

    /// Until the call has read the login, and waits for the lock.
    async fn has_read(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    fn store_is_here(&self) -> bool {
        ["store", "pickle.key"]
            .iter()
            .all(|part| self.here.path().join(part).exists())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_began_to_leave_is_not_forgotten() {
    let held = held().await;
    let forgetting = tokio::spawn(at(&held.server, held.here.path()).forget());
    held.has_read().await;
    let mut login = held.login();
    login["moved"] = json!({"leaving": {"to": "/somewhere"}});
    held.write(&login);
    held.lock.unlock().unwrap();
    let error = forgetting.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "move_unfinished");
    assert!(held.store_is_here());
    assert_eq!(held.login(), login);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_came_meanwhile_stays() {
    for wipes in [false, true] {
        let held = held().await;
        let first = held.login()["device_id"].clone();
        let ending = at(&held.server, held.here.path());
        let ending = tokio::spawn(async move {
            if wipes {
                ending.logout_and_wipe().await.map(Option::unwrap)
            } else {
                ending.logout().await
            }
        });
        while !held.server.log().iter().any(|asked| asked.path.ends_with("/logout")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        held.has_read().await;
        let mut login = held.login();
        login["device_id"] = "ANOTHER".into();
        held.write(&login);
        held.lock.unlock().unwrap();
        let ended = ending.await.unwrap().unwrap();
        assert_eq!(first, ended.device_id.as_str());
        assert!(held.store_is_here(), "wipes: {wipes}");
        assert_eq!(held.login(), login, "wipes: {wipes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_came_back_is_not_destroyed() {
    let held = held().await;
    let back = held.login();
    let mut login = back.clone();
    login["moved"] = json!({"left": {"to": "/somewhere"}});
    held.write(&login);
    let wiping = tokio::spawn(at(&held.server, held.here.path()).logout_and_wipe());
    held.has_read().await;
    login["moved"] = json!({"leaving": {"to": "/elsewhere"}});
    held.write(&login);
    held.lock.unlock().unwrap();
    assert_eq!(wiping.await.unwrap().unwrap_err().code(), "move_unfinished");
    assert!(held.store_is_here());
}
