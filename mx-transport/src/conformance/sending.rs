//! Clauses about exchanges that go well.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{answer, clause::Clause};
use crate::{Idempotent, Transport};

/// An answer is longer than any buffer on its way, in bytes, and no multiple of one.
const LONG: usize = 300_001;

/// Any status with its body is `Ok`, those that mean failure too.
pub async fn every_status_is_an_answer(transport: &dyn Transport) {
    let clause = Clause("every_status_is_an_answer");
    for status in [
        200, 201, 400, 401, 403, 404, 405, 409, 413, 418, 429, 500, 501, 502, 503, 504, 599,
    ] {
        let server = clause
            .server(move |_, _| vec![answer(status, "retry-after: 0.01\r\n", b"{\"some\":\"body\"}")])
            .await;
        let got = clause.ok(clause.send(transport, clause.request("GET", &server.url())).await);
        clause.holds(
            got.status().as_u16() == status && got.body() == &b"{\"some\":\"body\"}"[..],
            format_args!("{status} came as {} with {} bytes", got.status(), got.body().len()),
        );
    }
    let server = clause.server(|_, _| vec![answer(204, "", b"")]).await;
    let got = clause.ok(clause.send(transport, clause.request("DELETE", &server.url())).await);
    clause.holds(
        got.status().as_u16() == 204 && got.body().is_empty(),
        "204 came as something else",
    );
}

/// Method, path, query, headers and body arrive as they were given, and so does a long answer with its headers.
pub async fn what_is_sent_arrives(transport: &dyn Transport) {
    let clause = Clause("what_is_sent_arrives");
    let long: Bytes = (0..LONG)
        .map(|number| number.to_le_bytes()[0])
        .collect::<Vec<u8>>()
        .into();
    let told = long.clone();
    let server = clause
        .server(move |_, _| vec![answer(200, "x-kept: as it was\r\n", &told)])
        .await;
    for (method, path) in [
        ("POST", "/_matrix/client/v3/keys/claim"),
        (
            "PUT",
            "/rooms/!a%3Ahs.test/send/m.room.encrypted/%2F%3F%23%25?ts=1&x=%2e%2E",
        ),
        ("PUT", "/%E2%82%AC/%0A/%252e%252e/"),
    ] {
        let before = server.seen().len();
        let mut request = clause.request_with(method, &format!("{}{path}", server.url()), long.clone());
        request
            .headers_mut()
            .insert("x-asked", http::HeaderValue::from_static("also"));
        request.extensions_mut().insert(Idempotent);
        let got = clause.ok(clause.send(transport, request).await);
        clause.holds(*got.body() == long, "a long answer is another one");
        let kept = got.headers().get("x-kept").map(http::HeaderValue::as_bytes);
        clause.holds(kept == Some(b"as it was"), "a header of the answer is not there");
        let all = server.seen();
        let Some(seen) = all.get(before) else {
            clause.broken("nothing arrived")
        };
        clause.holds(
            seen.method() == method && seen.target() == path,
            format_args!("{method} {path} arrived as {} {}", seen.method(), seen.target()),
        );
        clause.holds(seen.header("x-asked") == Some("also"), "a header did not arrive");
        clause.holds(seen.body == long, "another body arrived");
    }
}

/// Many at a time: nobody is given the answer of another.
pub async fn each_caller_has_its_own_answer(transport: &dyn Transport) {
    let clause = Clause("each_caller_has_its_own_answer");
    let server = clause
        .server(|_, seen| vec![answer(200, "", seen.target().as_bytes())])
        .await;
    let url = server.url();
    let answers = join_all((0..40).map(|number| {
        let request = clause.request("GET", &format!("{url}/{number}"));
        clause.send(transport, request)
    }));
    for (number, got) in answers.await.into_iter().enumerate() {
        let got = clause.ok(got);
        let expected = format!("/{number}");
        clause.holds(
            got.body() == expected.as_bytes(),
            format_args!("the answer to {expected} is another one"),
        );
    }
}
