//! Clauses about exchanges that go wrong.

use std::{error::Error as StdError, time::Duration};

use bytes::Bytes;
use tokio::net::TcpListener;

use super::{Step, answer, clause::Clause};
use crate::{Deadline, Transport, TransportError, TransportErrorKind as Kind};

/// A part of a query, a header and a body, which nothing may tell.
pub(super) const SECRET: &str = "s3cr3t-of-the-request";

/// An answer of which 100 bytes are announced, and not all come.
pub(super) const CUT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"next_batch\":";

/// Where nobody listens: nothing was sent, and it is told.
pub async fn nobody_there_is_told(transport: &dyn Transport) {
    let clause = Clause("nobody_there_is_told");
    let url = nobody(clause).await;
    let answer = clause.send(transport, clause.request("POST", &url)).await;
    let error = clause.fails(answer, "nobody there", |kind| kind == Kind::Connect);
    clause.holds(
        !error.may_have_been_processed(),
        "a request that was not sent may have been processed",
    );
}

pub(super) async fn nobody(clause: Clause) -> String {
    let bound = TcpListener::bind("127.0.0.1:0").await;
    match bound.and_then(|listener| listener.local_addr()) {
        Ok(address) => format!("http://{address}"),
        Err(error) => clause.broken(format_args!("no socket on 127.0.0.1: {error}")),
    }
}

/// An answer that ends before its announced length, or before its last chunk, is none.
pub async fn a_truncated_answer_is_none(transport: &dyn Transport) {
    let clause = Clause("a_truncated_answer_is_none");
    for cut in [
        CUT,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}",
    ] {
        let server = clause
            .server(move |_, _| vec![Step::Write(Bytes::from_static(cut)), Step::Close])
            .await;
        let got = clause.send(transport, clause.request("GET", &server.url())).await;
        let error = clause.fails(got, "a truncated answer", |kind| kind == Kind::Truncated);
        clause.holds(error.may_have_been_processed(), "what was answered was not processed");
    }
}

/// A server that says nothing, or not all, is left at the deadline.
pub async fn silence_ends_at_the_deadline(transport: &dyn Transport) {
    let clause = Clause("silence_ends_at_the_deadline");
    for begun in [&b""[..], CUT] {
        let server = clause
            .server(move |_, _| vec![Step::Write(Bytes::from_static(begun)), Step::Silence])
            .await;
        let mut request = clause.request("POST", &server.url());
        request.extensions_mut().insert(Deadline(Duration::from_millis(200)));
        let got = clause.send(transport, request).await;
        let error = clause.fails(got, "silence", |kind| matches!(kind, Kind::Timeout(_)));
        clause.holds(error.may_have_been_processed(), "what was sent may have been processed");
    }
}

/// A redirect is an error, told by its host; nobody asks there.
pub async fn a_redirect_is_not_followed(transport: &dyn Transport) {
    let clause = Clause("a_redirect_is_not_followed");
    let target = clause.server(|_, _| vec![answer(200, "", b"{}")]).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}/elsewhere?x={SECRET}\r\n", target.url());
        let server = clause.server(move |_, _| vec![answer(status, &location, b"")]).await;
        for method in ["GET", "POST", "PUT"] {
            let got = clause.send(transport, clause.request(method, &server.url())).await;
            let error = clause.fails(got, "a redirect", |kind| kind == Kind::Redirect);
            let host = target.url();
            clause.holds(
                error.redirect_host() == host.strip_prefix("http://"),
                format_args!("the redirect's host is told as {:?}", error.redirect_host()),
            );
            no_secret(clause, &error);
        }
        clause.holds(server.seen().len() == 3, "a redirect was asked for again");
    }
    clause.holds(target.seen().is_empty(), "somebody went where the redirect points to");
}

/// A request that is not idempotent is sent once, whatever becomes of it.
pub async fn a_post_is_sent_once(transport: &dyn Transport) {
    let clause = Clause("a_post_is_sent_once");
    for steps in [
        vec![Step::Close],
        vec![Step::Reset],
        vec![Step::Write(Bytes::from_static(CUT)), Step::Close],
        vec![Step::Write(Bytes::from_static(b"this is no HTTP\r\n\r\n")), Step::Close],
    ] {
        let server = clause.server(move |_, _| steps.clone()).await;
        let request = clause.request_with("POST", &format!("{}/login", server.url()), Bytes::from_static(b"{}"));
        let got = clause.send(transport, request).await;
        let error = clause.fails(got, "a broken connection", |kind| {
            matches!(kind, Kind::Interrupted | Kind::Truncated | Kind::Malformed)
        });
        clause.holds(error.may_have_been_processed(), "it is taken for unprocessed");
        clause.holds(
            server.seen().len() == 1,
            format_args!("it was sent {} times", server.seen().len()),
        );
    }
    let server = clause.server(|_, _| vec![answer(502, "", b"<html>")]).await;
    clause.ok(clause.send(transport, clause.request("POST", &server.url())).await);
    clause.holds(server.seen().len() == 1, "a POST was repeated after 502");
}

/// Errors hold no query, no header and no body, whatever goes wrong.
pub async fn errors_tell_no_secret(transport: &dyn Transport) {
    let clause = Clause("errors_tell_no_secret");
    let broken = clause
        .server(|_, _| vec![Step::Write(Bytes::from_static(CUT)), Step::Close])
        .await;
    let garbage = clause
        .server(|_, seen| vec![Step::Write(seen.body.clone()), Step::Close])
        .await;
    for url in [nobody(clause).await, broken.url(), garbage.url()] {
        let url = format!("{url}/{SECRET}?access_token={SECRET}");
        let mut request = clause.request_with("POST", &url, Bytes::from_static(SECRET.as_bytes()));
        if let Ok(value) = SECRET.parse() {
            request.headers_mut().insert("authorization", value);
        }
        let got = clause.send(transport, request).await;
        no_secret(clause, &clause.fails(got, "a failure", |_| true));
    }
}

pub(super) fn no_secret(clause: Clause, error: &TransportError) {
    let mut words = format!("{error:?}");
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        words.push_str(&error.to_string());
        cause = error.source();
    }
    clause.holds(!words.contains(SECRET), "an error holds what was sent");
}

/// Whoever does not wait any more leaves no exchange behind.
pub async fn a_dropped_call_ends_the_exchange(transport: &dyn Transport) {
    let clause = Clause("a_dropped_call_ends_the_exchange");
    let server = clause.server(|_, _| vec![Step::Silence]).await;
    let call = transport.send(clause.request("GET", &server.url()));
    clause
        .soon(async {
            tokio::select! {
                _ = call => clause.broken("silence is answered"),
                () = server.requests(1) => {}
            }
        })
        .await;
    clause.soon(server.ended(1)).await;
}
