//! The ways to log in, and from a server's name to its homeserver. Row NW-36.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use mx_e2ee::{
    Client, ClientBuilder, SsoListener,
    transport::{ReqwestTransport, ShowRedirects, Transport},
};
use mx_test_homeserver::Fault;
use ruma::{OwnedUserId, user_id};
use serde_json::{Value, json};

use crate::{
    attachments::{code, requests},
    cli::Shell,
    world::World,
};

fn in_memory(world: &World) -> ClientBuilder {
    Client::builder()
        .homeserver("http://localhost")
        .transport(world.transport())
        .in_memory()
}

fn alice_on(world: &World) -> OwnedUserId {
    world.register("alice", "password")
}

#[tokio::test]
async fn a_user_is_known_by_several_names() {
    let world = World::new();
    let alice = alice_on(&world);
    world.also_named(&alice, "email", "alice@mail.test");
    world.also_named(&alice, "msisdn", "491701234567");
    for name in ["alice", "@alice:localhost", "alice@mail.test", "+49 170 1234567"] {
        let client = in_memory(&world).login(name, "password").await.unwrap();
        assert_eq!(client.user_id(), alice, "{name}");
    }
    for name in ["bob", "bob@mail.test", "+49 170 0000000"] {
        assert_eq!(
            code(in_memory(&world).login(name, "password").await),
            "wrong_password",
            "{name}"
        );
    }
    world.deactivate(&alice);
    assert_eq!(
        code(in_memory(&world).login("alice", "password").await),
        "user_deactivated"
    );
}

#[tokio::test]
async fn the_password_is_read_for_the_first_start_alone() {
    let world = World::new();
    alice_on(&world);
    let (here, bare) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let unreadable = || Err(std::io::Error::other("it is not there"));
    let at = |directory: &tempfile::TempDir| {
        let builder = Client::builder()
            .homeserver("http://localhost")
            .transport(world.transport());
        builder.directory(directory.path())
    };
    assert_eq!(
        code(at(&bare).open_or_login("alice", unreadable).await),
        "configuration"
    );
    let first = at(&here)
        .open_or_login("alice", || Ok("password\nand a second line".to_owned()))
        .await
        .unwrap();
    let device = first.device_id().to_owned();
    first.close().await.unwrap();
    let asked = world.log().len();
    for name in ["alice", "@alice:localhost", "alice@mail.test", "+49 170 1234567"] {
        let again = at(&here)
            .open_or_login(name, || unreachable!("no password is needed"))
            .await
            .unwrap();
        assert_eq!(again.device_id(), device, "{name}");
        again.close().await.unwrap();
    }
    for name in ["bob", "@alice:elsewhere", "@bob:localhost"] {
        let refused = at(&here)
            .open_or_login(name, || unreachable!("no password is needed"))
            .await;
        assert_eq!(code(refused), "already_logged_in", "{name}");
    }
    assert_eq!(world.log().len(), asked, "nothing is sent");
}

#[tokio::test]
async fn what_is_not_offered_is_told_with_what_is() {
    let world = World::new();
    let _alice = alice_on(&world);
    world.offer_logins(&["m.login.sso", "m.login.token"]);
    let kinds = in_memory(&world).login_kinds().await.unwrap();
    assert!(kinds.sso && kinds.token && !kinds.password && !kinds.device_code);
    let error = in_memory(&world).login("alice", "password").await.unwrap_err();
    assert_eq!(error.code(), "login_not_offered");
    assert!(error.to_string().contains("m.login.sso, m.login.token"), "{error}");
    world.offer_logins(&["m.login.password"]);
    assert_eq!(
        code(in_memory(&world).login_with_login_token("x").await),
        "login_not_offered"
    );
    let listener = SsoListener::start().await.unwrap();
    assert_eq!(
        code(in_memory(&world).sso_page(listener.address()).await),
        "login_not_offered"
    );
    let error = in_memory(&world)
        .login_with_oauth(Default::default(), |_| ())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "no_oauth_login");
    world.offer_logins(&[]);
    assert_eq!(
        code(in_memory(&world).login("alice", "password").await),
        "no_password_login"
    );
}

/// A browser: it opens a page and goes where it is sent.
pub(crate) async fn browse(page: &str) -> (u16, Option<String>) {
    let browser = ReqwestTransport::builder().build().unwrap();
    let mut request = http::Request::get(page).body(bytes::Bytes::new()).unwrap();
    request.extensions_mut().insert(ShowRedirects);
    let answer = browser.send(request).await.unwrap();
    let to = answer
        .headers()
        .get("location")
        .map(|to| to.to_str().unwrap().to_owned());
    (answer.status().as_u16(), to)
}

#[tokio::test(flavor = "multi_thread")]
async fn single_sign_on_comes_back_with_a_token_that_logs_in_once() {
    let world = World::new();
    let alice = alice_on(&world);
    let socket = world.listen().await;
    world.offer_logins(&["m.login.sso", "m.login.token"]);
    world.visit_single_sign_on(&alice);
    let builder = || Client::builder().homeserver(socket.uri()).in_memory();
    let listener = SsoListener::start().await.unwrap();
    let page = builder().sso_page(listener.address()).await.unwrap();
    let browsing = async {
        let (status, back) = browse(page.as_str()).await;
        assert_eq!(status, 302);
        assert_eq!(browse(&back.unwrap()).await.0, 200);
    };
    let (token, ()) = tokio::join!(listener.token(Duration::from_secs(60)), browsing);
    let token = token.unwrap();
    let client = builder().login_with_login_token(&token).await.unwrap();
    assert_eq!(client.user_id(), alice);
    assert_eq!(
        code(builder().login_with_login_token(&token).await),
        "wrong_login_token"
    );
}

#[tokio::test]
async fn nw_36_a_name_is_enough_where_its_server_says_where_the_homeserver_is() {
    let world = World::new();
    let alice = alice_on(&world);
    world.set_well_known(Some(json!({"m.homeserver": {"base_url": "http://localhost/"}})));
    for named in [Some("localhost"), None] {
        let mut builder = Client::builder().transport(world.transport()).in_memory();
        if let Some(named) = named {
            builder = builder.homeserver(named);
        }
        let client = builder.login("@alice:localhost", "password").await.unwrap();
        assert_eq!(
            (client.user_id(), client.session().homeserver.as_str()),
            (&*alice, "http://localhost")
        );
    }
    world.set_well_known(Some(json!({"m.homeserver": {"base_url": "https://matrix.hs.test"}})));
    let before = requests(&world, "/login");
    let builder = || {
        Client::builder()
            .transport(world.transport())
            .in_memory()
            .homeserver("hs.test")
    };
    for (fault, expected) in [
        (Fault::body("/.well-known/", "<html>"), "discovery_failed"),
        (Fault::body("/.well-known/", &"x".repeat(100_000)), "discovery_failed"),
        (Fault::status("/.well-known/", 500, "{}"), "discovery_failed"),
        (
            Fault::body("/.well-known/", r#"{"m.homeserver":{"base_url":"http://evil.test"}}"#),
            "discovery_failed",
        ),
        (Fault::status("/.well-known/", 302, ""), "discovery_redirected"),
        (Fault::status("/versions", 404, "").times(3), "no_homeserver"),
    ] {
        world.fault(fault);
        let error = builder().login("alice", "password").await.unwrap_err();
        world.examine(&error);
        assert_eq!(error.code(), expected, "{error}");
        world.behave();
    }
    assert_eq!(requests(&world, "/login"), before, "no password went anywhere");
    // Without a page the name is the homeserver's own.
    world.set_well_known(None);
    builder().login("alice", "password").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mx_logs_in_by_every_way_that_needs_no_browser() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    let authority = uri.strip_prefix("http://").unwrap();
    shell
        .server
        .set_well_known(Some(json!({"m.homeserver": {"base_url": uri}})));
    // The name of a server of this machine is asked on its port.
    let output = shell
        .run("alice", &["login", "--homeserver", authority, "--user", "alice"])
        .await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains(&format!("has its homeserver at {uri}")),
        "{said}"
    );
    let whoami = shell.ok("alice", &["whoami"]).await;
    assert!(whoami.ends_with(&format!("on {uri}")), "{whoami}");

    let token = shell.data.path().join("token");
    std::fs::write(&token, shell.server.token(user_id!("@bob:localhost"), "BOBS")).unwrap();
    let file = token.to_str().unwrap().to_owned();
    let said = shell
        .ok("bob", &["login", "--homeserver", &uri, "--token-file", &file])
        .await;
    assert!(said.starts_with("@bob:localhost device BOBS"), "{said}");

    let offered = shell
        .ok("new", &["--json", "login", "--homeserver", &uri, "--offered"])
        .await;
    let offered: Value = serde_json::from_str(&offered).unwrap();
    assert_eq!((&offered["password"], &offered["sso"]), (&json!(true), &json!(false)));

    for (arguments, exit) in [
        (vec!["login", "--user", "alice"], 2),
        (vec!["login", "--homeserver", "no name", "--user", "alice"], 2),
        (vec!["login", "--homeserver", &uri, "--sso"], 3),
        (vec!["login", "--homeserver", &uri, "--oauth"], 3),
        (vec!["login", "--homeserver", &uri, "--oauth", "--sso"], 2),
        (vec!["login", "--homeserver", &uri, "--login-token-file", &file], 3),
    ] {
        let output = shell.run("new", &arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mx_waits_for_the_browser_of_single_sign_on() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    shell.server.offer_logins(&["m.login.sso", "m.login.token"]);
    shell.server.visit_single_sign_on(user_id!("@alice:localhost"));
    let mut mx = shell
        .command("alice", &["login", "--homeserver", &uri, "--sso"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(mx.stderr.take().unwrap()).lines();
    let page = tokio::task::spawn_blocking(move || {
        let found = lines.find_map(|line| line.unwrap().strip_prefix("open ").map(str::to_owned));
        (found.unwrap(), lines)
    });
    let (page, lines) = page.await.unwrap();
    let (_, back) = browse(&page).await;
    assert_eq!(browse(&back.unwrap()).await.0, 200);
    let output = tokio::task::spawn_blocking(move || {
        let said: Vec<String> = lines.map(Result::unwrap).collect();
        (mx.wait_with_output().unwrap(), said)
    });
    let (output, said) = output.await.unwrap();
    assert!(output.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("@alice:localhost device"));
}

#[tokio::test]
async fn a_login_whose_key_is_lost_is_forgotten_and_not_ended() {
    let world = World::new();
    let alice = alice_on(&world);
    let here = Arc::new(tempfile::tempdir().unwrap());
    let builder = || Client::builder().transport(world.transport()).directory(here.path());
    let client = builder()
        .homeserver("http://localhost")
        .login("alice", "password")
        .await
        .unwrap();
    let device = client.device_id().to_owned();
    // Another process ends nothing while this one holds the store, and fetches files.
    builder().files().await.unwrap();
    client.close().await.unwrap();
    std::fs::rename(here.path().join("pickle.key"), here.path().join("lost.key")).unwrap();
    for error in [
        builder().logout().await.map(|_| ()).unwrap_err(),
        builder().files().await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.code(), "store_key_missing", "{error}");
    }
    assert_eq!(world.devices_of(&alice), [device.as_str()]);
    let forgotten = builder().forget().await.unwrap();
    assert_eq!(forgotten.device_id, device);
    assert_eq!(world.devices_of(&alice), [device.as_str()], "it is still there");
    assert_eq!(code(builder().open().await), "not_logged_in");
    let anew = builder()
        .homeserver("http://localhost")
        .login("alice", "password")
        .await
        .unwrap();
    assert_ne!(anew.device_id(), device);
}

#[tokio::test]
async fn a_logout_works_beside_a_process_that_holds_the_store() {
    let world = World::new();
    let alice = alice_on(&world);
    let here = Arc::new(tempfile::tempdir().unwrap());
    let builder = || Client::builder().transport(world.transport()).directory(here.path());
    let client = builder()
        .homeserver("http://localhost")
        .login("alice", "password")
        .await
        .unwrap();
    builder().logout().await.unwrap();
    assert!(world.devices_of(&alice).is_empty());
    assert_eq!(code(client.sync().await), "logged_out");
}
