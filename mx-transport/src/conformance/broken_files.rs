//! Clauses about files whose exchange goes wrong: what holds for a request in memory holds for them.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Step, answer,
    clause::Clause,
    failing::{CUT, SECRET, no_secret, nobody},
    files::{Given, Taken},
};
use crate::{Deadline, Source, Transport, TransportErrorKind as Kind, layer::Answer};

/// The sinks of these clauses take so many bytes.
const ENOUGH: u64 = 1000;

/// Which way a file goes.
#[derive(Clone, Copy, Debug)]
enum Way {
    Up,
    Down,
}

const BOTH: [Way; 2] = [Way::Up, Way::Down];

/// A short file, one way or the other.
fn exchange<'a>(
    clause: Clause,
    transport: &'a dyn Transport,
    way: Way,
    url: &str,
    deadline: Option<Duration>,
) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
    let streams = clause.streams(transport);
    match way {
        Way::Up => {
            let file: Arc<dyn Source> = Arc::new(Given::whole(Bytes::from_static(SECRET.as_bytes())));
            let mut request = clause.request_with("POST", url, file);
            request.extensions_mut().extend(deadline_of(deadline));
            Box::pin(streams.upload(request))
        }
        Way::Down => {
            let mut request = clause.request("GET", url);
            request.extensions_mut().extend(deadline_of(deadline));
            Box::pin(async move { streams.download(request, &mut Taken::up_to(ENOUGH)).await })
        }
    }
}

fn deadline_of(deadline: Option<Duration>) -> http::Extensions {
    let mut extensions = http::Extensions::new();
    if let Some(deadline) = deadline {
        extensions.insert(Deadline(deadline));
    }
    extensions
}

/// A file that ends early is none, and neither is an answer to one.
pub async fn a_truncated_file_is_none(transport: &dyn Transport) {
    let clause = Clause("a_truncated_file_is_none");
    for way in BOTH {
        let server = clause
            .server(|_, _| vec![Step::Write(Bytes::from_static(CUT)), Step::Close])
            .await;
        let got = clause.soon(exchange(clause, transport, way, &server.url(), None)).await;
        clause.fails(got, "a truncated file", |kind| kind == Kind::Truncated);
    }
}

/// A file whose exchange stands still is given up at the deadline.
pub async fn a_silent_file_ends_at_the_deadline(transport: &dyn Transport) {
    let clause = Clause("a_silent_file_ends_at_the_deadline");
    for (way, begun) in [(Way::Up, &b""[..]), (Way::Down, b""), (Way::Up, CUT), (Way::Down, CUT)] {
        let server = clause
            .server(move |_, _| vec![Step::Write(Bytes::from_static(begun)), Step::Silence])
            .await;
        let deadline = Some(Duration::from_millis(200));
        let got = clause
            .soon(exchange(clause, transport, way, &server.url(), deadline))
            .await;
        let error = clause.fails(got, "silence", |kind| matches!(kind, Kind::Timeout(_)));
        clause.holds(error.may_have_been_processed(), "what was sent may have been processed");
    }
}

/// A redirect of a file is an error; nobody asks there, and nothing of the file goes there.
pub async fn a_redirected_file_goes_nowhere(transport: &dyn Transport) {
    let clause = Clause("a_redirected_file_goes_nowhere");
    let target = clause.server(|_, _| vec![answer(200, "", b"{}")]).await;
    for (way, status) in [(Way::Up, 302), (Way::Up, 307), (Way::Down, 302), (Way::Down, 307)] {
        let location = format!("location: {}/elsewhere?x={SECRET}\r\n", target.url());
        let server = clause.server(move |_, _| vec![answer(status, &location, b"")]).await;
        let got = clause.soon(exchange(clause, transport, way, &server.url(), None)).await;
        let error = clause.fails(got, "a redirect", |kind| kind == Kind::Redirect);
        no_secret(clause, &error);
    }
    clause.holds(target.seen().is_empty(), "somebody went where the redirect points to");
}

/// An upload that is not marked as idempotent is sent once, whatever becomes of it.
pub async fn an_upload_is_sent_once(transport: &dyn Transport) {
    let clause = Clause("an_upload_is_sent_once");
    for step in [Step::Close, Step::Reset] {
        let server = clause.server(move |_, _| vec![step.clone()]).await;
        let got = clause
            .soon(exchange(clause, transport, Way::Up, &server.url(), None))
            .await;
        let error = clause.fails(got, "a broken connection", |kind| kind == Kind::Interrupted);
        clause.holds(error.may_have_been_processed(), "it is taken for unprocessed");
        clause.holds(
            server.seen().len() == 1,
            format_args!("it was sent {} times", server.seen().len()),
        );
    }
}

/// Errors about files hold no query and nothing of the file.
pub async fn errors_about_files_tell_no_secret(transport: &dyn Transport) {
    let clause = Clause("errors_about_files_tell_no_secret");
    let broken = clause
        .server(|_, _| vec![Step::Write(Bytes::from_static(CUT)), Step::Close])
        .await;
    for url in [nobody(clause).await, broken.url()] {
        for way in BOTH {
            let url = format!("{url}/{SECRET}?access_token={SECRET}");
            let got = clause.soon(exchange(clause, transport, way, &url, None)).await;
            no_secret(clause, &clause.fails(got, "a failure", |_| true));
        }
    }
}

/// Whoever does not wait for a file any more leaves no exchange behind.
pub async fn a_dropped_file_ends_the_exchange(transport: &dyn Transport) {
    let clause = Clause("a_dropped_file_ends_the_exchange");
    for way in BOTH {
        let server = clause.server(|_, _| vec![Step::Silence]).await;
        let call = exchange(clause, transport, way, &server.url(), None);
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
}
