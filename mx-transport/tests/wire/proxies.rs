//! Row NW-40: proxies, which are used when they are asked for.

use std::process::Command;

use super::*;

/// Set in the process that a test starts of itself.
const CHILD: &str = "MX_WIRE_CHILD_ASKS";

#[tokio::test]
async fn nw_40_a_proxy_that_was_asked_for_sees_everything_and_its_password_is_sent_to_it_alone() {
    let target = server(|_, _| vec![answer(200, "", b"direct")]).await;
    let proxy = server(|_, _| vec![answer(200, "", b"through")]).await;
    let address = proxy.url().replace("http://", "http://user:proxy-secret@");
    let builder = ReqwestTransport::builder().proxy(&address).unwrap();
    assert!(!format!("{builder:?}").contains("proxy-secret"));
    let client = builder.build().unwrap();
    assert!(!format!("{client:?}").contains("proxy-secret"));
    assert_eq!(client.send(get(&target.url())).await.unwrap().body(), "through");
    assert!(target.seen().is_empty());
    let seen = proxy.seen();
    assert!(
        seen[0].target().starts_with("http://127.0.0.1:"),
        "{}",
        seen[0].target()
    );
    assert!(seen[0].header("proxy-authorization").unwrap().starts_with("Basic "));
}

#[tokio::test]
async fn nw_40_a_proxy_that_wants_to_know_who_asks_is_no_homeserver() {
    let proxy = server(|_, _| vec![answer(407, "proxy-authenticate: Basic\r\n", b"<html>Who?</html>")]).await;
    let through = || {
        ReqwestTransport::builder()
            .proxy(&proxy.url())
            .unwrap()
            .build()
            .unwrap()
    };
    let error = through().send(get("https://hs.test/?q=secret")).await.unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::Connect,
        "no tunnel, and nothing was sent: {error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert_eq!(proxy.seen()[0].method(), "CONNECT");
    let answer = through().send(get("http://127.0.0.1:1/")).await.unwrap();
    assert_eq!(answer.status(), 407);
}

/// What a process with proxies in its environment does, as the test above has asked.
async fn child(asked: &str) -> bool {
    let Ok(url) = std::env::var(CHILD) else { return false };
    let builder = ReqwestTransport::builder();
    let builder = if asked == "environment" {
        builder.proxy_of_environment()
    } else {
        builder
    };
    let _whatever = builder.build().unwrap().send(get(&url)).await;
    true
}

/// Run a test of this binary, with a proxy in its environment. Who was asked: the target, the proxy.
async fn asked(test: &str, more: &[(&str, &str)]) -> (usize, usize) {
    let target = server(|_, _| vec![answer(200, "", b"{}")]).await;
    let proxy = server(|_, _| vec![answer(200, "", b"{}")]).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(CHILD, target.url());
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env(name, proxy.url());
    }
    command
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env_remove("REQUEST_METHOD");
    command.envs(more.iter().copied());
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    (target.seen().len(), proxy.seen().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nw_40_proxies_of_the_environment_are_not_looked_at() {
    if child("").await {
        return;
    }
    let test = "proxies::nw_40_proxies_of_the_environment_are_not_looked_at";
    assert_eq!(asked(test, &[]).await, (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nw_40_proxies_of_the_environment_are_used_when_that_is_asked_for() {
    if child("environment").await {
        return;
    }
    let test = "proxies::nw_40_proxies_of_the_environment_are_used_when_that_is_asked_for";
    assert_eq!(asked(test, &[]).await, (0, 1));
    assert_eq!(asked(test, &[("NO_PROXY", "127.0.0.1")]).await, (1, 0));
}
