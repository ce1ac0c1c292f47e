//! Logins by OAuth 2.0: a code that is typed elsewhere, renewal, revocation, and the same device again.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::Arc,
};

use mx_e2ee::{Client, ClientBuilder, transport::ClientRegistration};
use mx_test_homeserver::Homeserver;
use ruma::{UserId, user_id};
use tempfile::TempDir;

use crate::{
    attachments::{code, requests},
    cli::Shell,
    refresh::expire,
    world::World,
};

struct Scene {
    world: World,
    here: Arc<TempDir>,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let _alice = world.register("alice", "password");
        world.offer_oauth("http://localhost");
        let here = Arc::new(tempfile::tempdir().unwrap());
        world.keep(&here);
        Self { world, here }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .homeserver("http://localhost")
            .transport(self.world.transport())
            .directory(self.here.path())
    }

    /// Log in, and somebody types the code as this user.
    async fn login(&self, user: Option<&UserId>) -> mx_e2ee::Result<Client> {
        let server = Homeserver::clone(&self.world);
        let typed = move |code: &mx_e2ee::transport::DeviceAuthorization| {
            assert_eq!(server.codes(), [code.user_code.as_str()]);
            server.type_code(&code.user_code, user);
        };
        self.builder()
            .login_with_oauth(ClientRegistration::default(), typed)
            .await
    }
}

fn alice() -> &'static UserId {
    user_id!("@alice:localhost")
}

#[tokio::test(start_paused = true)]
async fn a_code_that_is_typed_logs_a_device_in_which_renews_and_ends_itself() {
    let scene = Scene::new();
    let client = scene.login(Some(alice())).await.unwrap();
    assert_eq!(client.user_id(), alice());
    assert_eq!(scene.world.devices_of(alice()), [client.device_id().as_str()]);
    assert!(client.key_status().await.unwrap().published);
    let renewals = || {
        let log = scene.world.log();
        let is_renewal = |body: &serde_json::Value| body["grant_type"] == "refresh_token";
        log.iter().filter(|exchange| is_renewal(&exchange.request_body)).count()
    };
    for soft in [true, false] {
        expire(&scene.world, &client, soft);
        client.sync().await.unwrap();
    }
    assert_eq!(renewals(), 2);
    assert_eq!(
        requests(&scene.world, "/refresh"),
        0,
        "the homeserver has nothing to do with it"
    );
    client.close().await.unwrap();
    // The next process knows who gave the tokens.
    let client = scene.builder().open().await.unwrap();
    expire(&scene.world, &client, true);
    client.sync().await.unwrap();
    assert_eq!(renewals(), 3);
    client.logout().await.unwrap();
    assert_eq!(requests(&scene.world, "/oauth/revoke"), 1);
    assert_eq!(requests(&scene.world, "/logout"), 0);
    assert!(scene.world.devices_of(alice()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_same_device_logs_in_again_under_the_same_name() {
    let scene = Scene::new();
    let client = scene.login(Some(alice())).await.unwrap();
    let device = client.device_id().to_owned();
    expire(&scene.world, &client, true);
    scene.world.revoke_refresh_token(alice(), &device, true);
    assert_eq!(code(client.sync().await), "soft_logged_out");
    client.close().await.unwrap();
    let again = scene.login(Some(alice())).await.unwrap();
    assert_eq!(again.device_id(), device);
    assert_eq!(requests(&scene.world, "/oauth/register"), 1, "the name is kept");
    // An authorization server that has forgotten us is told again.
    expire(&scene.world, &again, true);
    scene.world.revoke_refresh_token(alice(), &device, true);
    scene.world.forget_oauth_clients();
    again.close().await.unwrap();
    let third = scene.login(Some(alice())).await.unwrap();
    assert_eq!(third.device_id(), device);
    assert_eq!(requests(&scene.world, "/oauth/register"), 2);
    third.logout_and_wipe().await.unwrap();
    assert!(scene.world.devices_of(alice()).is_empty());
    assert!(crate::attachments::names(scene.here.path()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_code_that_is_denied_leaves_nothing() {
    let scene = Scene::new();
    assert_eq!(code(scene.login(None).await), "login_denied");
    assert!(scene.world.devices_of(alice()).is_empty());
    assert_eq!(code(scene.builder().open().await), "not_logged_in");
    scene.login(Some(alice())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mx_shows_the_code_and_waits() {
    let shell = Shell::new().await;
    let uri = shell.listening.uri();
    shell.server.offer_oauth(&uri);
    let mut mx = shell
        .command("alice", &["login", "--homeserver", &uri, "--oauth"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(mx.stderr.take().unwrap()).lines();
    let shown = tokio::task::spawn_blocking(move || {
        let found = lines.find_map(|line| line.unwrap().split_once(" and type ").map(|(_, code)| code.to_owned()));
        (found.unwrap(), lines)
    });
    let (code, lines) = shown.await.unwrap();
    shell.server.type_code(&code, Some(alice()));
    let ended = tokio::task::spawn_blocking(move || {
        let said: Vec<String> = lines.map(Result::unwrap).collect();
        (mx.wait_with_output().unwrap(), said)
    });
    let (output, said) = ended.await.unwrap();
    assert!(output.status.success(), "{said:?}");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stdout.starts_with("@alice:localhost device"), "{stdout}");
    assert!(!said.join("\n").contains("-of-the-test-homeserver"));
    shell.ok("alice", &["listen", "--once"]).await;
    shell.ok("alice", &["logout"]).await;
    assert!(shell.server.devices_of(alice()).is_empty());
    let violations = shell.server.violations();
    assert!(violations.is_empty(), "{violations:?}");
}
