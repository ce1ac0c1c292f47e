//! Row NW-40: proxies, which are used when they are asked for.

use std::process::Command;

use super::*;

/// Set in the process that a test starts of itself.
const CHILD: &str = "MX_WIRE_CHILD_ASKS";

#[tokio::test]
async fn nw_40_a_proxy_that_was_asked_for_is_used_and_its_password_is_sent_to_it_alone() {
    let proxy = server(|_, _| vec![answer(200, "", b"through")]).await;
    let address = proxy.url().replace("http://", "http://user:proxy-secret@");
    let builder = ReqwestTransport::builder().proxy(&address).unwrap();
    assert!(!format!("{builder:?}").contains("proxy-secret"));
    let client = builder.allow_plain_http(true).build().unwrap();
    assert!(!format!("{client:?}").contains("proxy-secret"));
    assert_eq!(client.send(get("http://hs.test/x")).await.unwrap().body(), "through");
    client.send(get("https://hs.test/?q=secret")).await.unwrap_err();
    let seen = proxy.seen();
    assert_eq!((seen[0].method(), seen[0].target()), ("GET", "http://hs.test/x"));
    assert_eq!((seen[1].method(), seen[1].target()), ("CONNECT", "hs.test:443"));
    for seen in seen {
        assert!(seen.header("proxy-authorization").unwrap().starts_with("Basic "));
        assert!(!seen.head.contains("secret"), "{}", seen.head);
    }
}

#[tokio::test]
async fn nw_40_what_is_on_this_machine_is_not_asked_of_another_one() {
    let target = server(|_, _| vec![answer(200, "", b"direct")]).await;
    let proxy = server(|_, _| vec![answer(200, "", b"through")]).await;
    let client = ReqwestTransport::builder()
        .proxy(&proxy.url())
        .unwrap()
        .build()
        .unwrap();
    let port = target.url().rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "localhost"] {
        let answer = client.send(get(&format!("http://{host}:{port}/"))).await.unwrap();
        assert_eq!(answer.body(), "direct", "{host}");
    }
    let error = client.send(get("http://[::1]:1/")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connect);
    let error = client.send(get("http://hs.test/")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Build, "a token in plain sight of the proxy");
    assert!(proxy.seen().is_empty());
}

#[tokio::test]
async fn nw_40_a_proxy_that_wants_to_know_who_asks_is_no_homeserver() {
    let proxy = server(|_, _| vec![answer(407, "proxy-authenticate: Basic\r\n", b"<html>Who?</html>")]).await;
    let through = || {
        let builder = ReqwestTransport::builder().proxy(&proxy.url()).unwrap();
        builder.allow_plain_http(true).build().unwrap()
    };
    let error = through().send(get("https://hs.test/?q=secret")).await.unwrap_err();
    assert_eq!(
        error.kind(),
        Kind::Connect,
        "no tunnel, and nothing was sent: {error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("secret"));
    assert_eq!(proxy.seen()[0].method(), "CONNECT");
    let answer = through().send(get("http://hs.test/")).await.unwrap();
    assert_eq!(answer.status(), 407);
}

#[test]
fn nw_40_what_is_meant_for_the_homeserver_is_not_for_a_proxy_in_tls() {
    let authority = tls::Authority::new("of the tests");
    let trusting = || {
        let builder = ReqwestTransport::builder().trust_pem(authority.pem().as_bytes());
        builder.unwrap()
    };
    let pin = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse().unwrap();
    for (proxy, is_built) in [("https://proxy.test:3128", false), ("http://proxy.test:3128", true)] {
        for builder in [trusting().pin(pin), trusting().trust_nothing_else()] {
            let built = builder.proxy(proxy).unwrap().build();
            assert_eq!(
                built.map_err(|error| error.kind()).err(),
                (!is_built).then_some(Kind::Build)
            );
        }
        assert!(trusting().proxy(proxy).unwrap().build().is_ok(), "{proxy}");
    }
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
    // A name, since what is on this machine is not asked through proxies at all.
    let (address, url) = url.split_once(' ').unwrap();
    let builder = builder
        .allow_plain_http(true)
        .resolve("hs.test", address.parse().unwrap());
    let _whatever = builder.build().unwrap().send(get(url)).await;
    true
}

/// Run a test of this binary, with a proxy in its environment. Who was asked: the target, the proxy.
async fn asked(test: &str, more: &[(&str, &str)]) -> (usize, usize) {
    let target = server(|_, _| vec![answer(200, "", b"{}")]).await;
    let proxy = server(|_, _| vec![answer(200, "", b"{}")]).await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    let url = target.url();
    let address = url.trim_start_matches("http://");
    let port = address.rsplit(':').next().unwrap();
    command
        .args(["--exact", test])
        .env(CHILD, format!("{address} http://hs.test:{port}/"));
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
    assert_eq!(asked(test, &[("NO_PROXY", "hs.test")]).await, (1, 0));
}
