//! `mx room show`: the tree, the JSON and the page, whatever people call themselves.

use serde_json::{Value, json};

use crate::cli::Shell;

const EVIL: &str = "<script>alert(1)</script>\u{202e}\u{1b}[31m\"><img src=x onerror=alert(2)>";

/// A room whose name, member and device are called what nobody should be.
async fn evil(shell: &Shell) -> String {
    let room = shell.pair().await;
    let id = ruma::RoomId::parse(&room).unwrap();
    let (alice, bob) = (ruma::user_id!("@alice:localhost"), ruma::user_id!("@bob:localhost"));
    let server = &shell.server;
    server.set_state(&id, alice, "m.room.name", "", json!({"name": EVIL}));
    let member = json!({"membership": "join", "displayname": EVIL});
    server.set_state(&id, bob, "m.room.member", bob.as_str(), member);
    server.rewrite("/keys/query", |_, answer| {
        let (head, body) = answer.into_parts();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        for devices in body["device_keys"].as_object_mut().unwrap().values_mut() {
            for device in devices.as_object_mut().unwrap().values_mut() {
                device["unsigned"] = json!({"device_display_name": EVIL});
            }
        }
        http::Response::from_parts(head, body.to_string().into())
    });
    room
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_and_the_page_say_who_can_read_and_nothing_in_them_runs() {
    let shell = Shell::new().await;
    let room = evil(&shell).await;
    let page = shell.data.path().join("room.html");
    let path = page.to_str().unwrap();
    let tree = shell.ok("alice", &["room", "show", &room, "--html", path]).await;
    assert!(tree.starts_with(&room), "{tree}");
    for part in [
        "2 of 2 device(s) can read",
        "├─ @alice:localhost",
        "└─ @bob:localhost",
        "✓ ",
        "no identity",
        "(ourselves",
    ] {
        assert!(tree.contains(part), "{part}: {tree}");
    }
    assert!(!tree.contains(['\u{1b}', '\u{202e}']), "{tree:?}");
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("default-src 'none'"));
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    for never in [
        "<script",
        "<img",
        "onerror=alert(2)>",
        "http://",
        "https://",
        "url(",
        "@import",
        "\u{202e}",
        "\u{1b}",
    ] {
        assert!(!html.contains(never), "{never}");
    }
    let mode = std::fs::metadata(&page).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    let again = shell.run("alice", &["room", "show", &room, "--html", path]).await;
    assert_eq!(again.status.code(), Some(10), "a file that is there is not replaced");
    shell
        .ok("alice", &["room", "show", &room, "--html", path, "--force"])
        .await;
    let json: Value = serde_json::from_str(&shell.ok("alice", &["--json", "room", "show", &room]).await).unwrap();
    assert_eq!((&json["encrypted"], &json["name"]), (&true.into(), &EVIL.into()));
    assert_eq!(json["users"][1]["devices"][0]["outlook"], "needs_session");
    assert_eq!(json["display_names"]["@bob:localhost"], EVIL);
}
