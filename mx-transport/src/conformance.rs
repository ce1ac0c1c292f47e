//! The contract of a [`Transport`] as functions: what an author of a client or a wrapper runs to know that it is one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[cfg(feature = "reqwest")] {
//! use mx_transport::{ReqwestTransport, RequestLog, conformance};
//!
//! let transport = RequestLog::new(ReqwestTransport::builder().build()?);
//! let report = conformance::all(&transport).await;
//! assert!(report.passed().contains(&"a_redirect_is_not_followed"));
//! # }
//! # Ok(()) }
//! ```
//!
//! The clauses talk to a server of their own on a socket of 127.0.0.1, which says exactly what a clause wants
//! ([`Server`]). A clause that is not kept panics with its name and with what was found. A transport that carries no files
//! has the clauses about them skipped, and the report says so. Give a wrapper that repeats short pauses: some clauses fail
//! for as long as it tries.

mod broken_files;
mod clause;
mod failing;
mod files;
mod report;
mod sending;
mod server;

pub use self::{
    broken_files::{
        a_dropped_file_ends_the_exchange, a_redirected_file_goes_nowhere, a_silent_file_ends_at_the_deadline,
        a_truncated_file_is_none, an_upload_is_sent_once, errors_about_files_tell_no_secret,
    },
    failing::{
        a_dropped_call_ends_the_exchange, a_post_is_sent_once, a_redirect_is_not_followed, a_truncated_answer_is_none,
        errors_tell_no_secret, nobody_there_is_told, silence_ends_at_the_deadline,
    },
    files::{
        a_broken_sink_is_told, a_broken_source_is_told, a_file_arrives_whole, a_file_is_sent_whole,
        a_file_over_the_cap_is_refused, a_refusal_is_no_file,
    },
    report::{Report, Skipped},
    sending::{each_caller_has_its_own_answer, every_status_is_an_answer, what_is_sent_arrives},
    server::{Seen, Server, Step, answer, play},
};
use crate::Transport;

/// Every clause, one after the other; the report is printed as well.
#[expect(clippy::print_stdout, reason = "what was skipped is never skipped in silence")]
pub async fn all(transport: &dyn Transport) -> Report {
    let mut report = Report::default();
    macro_rules! keep {
        ($($clause:ident),+ $(,)?) => {
            $($clause(transport).await; report.pass(stringify!($clause));)+
        };
    }
    keep!(
        every_status_is_an_answer,
        what_is_sent_arrives,
        each_caller_has_its_own_answer,
        nobody_there_is_told,
        a_truncated_answer_is_none,
        silence_ends_at_the_deadline,
        a_redirect_is_not_followed,
        a_post_is_sent_once,
        errors_tell_no_secret,
        a_dropped_call_ends_the_exchange,
    );
    if transport.streams().is_some() {
        keep!(
            a_file_is_sent_whole,
            a_file_arrives_whole,
            a_file_over_the_cap_is_refused,
            a_refusal_is_no_file,
            a_broken_source_is_told,
            a_broken_sink_is_told,
            a_truncated_file_is_none,
            a_silent_file_ends_at_the_deadline,
            a_redirected_file_goes_nowhere,
            an_upload_is_sent_once,
            errors_about_files_tell_no_secret,
            a_dropped_file_ends_the_exchange,
        );
    } else {
        report.skip("the clauses about files", "this transport carries none");
    }
    println!("{report}");
    report
}
