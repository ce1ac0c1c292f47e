//! The suite finds transports that are broken on purpose, each by the name of the clause that it breaks.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use mx_transport::{
    Deadline, ReqwestTransport, Sink, Source, Streams, Transport, TransportError, TransportErrorKind as Kind,
    conformance,
};

type Answer = Result<http::Response<Bytes>, TransportError>;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    None,
    ErrsOnFailure,
    ForgetsHeaders,
    DecodesThePath,
    MixesAnswersUp,
    CallsEverythingInterrupted,
    TakesTruncatedForWhole,
    ForgetsTheDeadline,
    FollowsRedirects,
    RepeatsEverything,
    TellsTheUri,
    GoesOnWhenDropped,
    ForgetsTheLastByteOfAFile,
    TakesAnyFile,
    PutsRefusalsIntoTheSink,
    BlamesTheNetwork,
    GivesAllTheFirstAnswer,
    SendsAnotherFile,
    IgnoresAFullDisk,
    TakesTruncatedFilesForWhole,
    ForgetsTheDeadlineOfFiles,
    FollowsRedirectsOfFiles,
    RepeatsUploads,
    TellsTheUriOfFiles,
    GoesOnWithFilesWhenDropped,
}

#[derive(Clone, Debug)]
struct Mutant {
    inner: ReqwestTransport,
    mutation: Mutation,
    last: Arc<tokio::sync::Mutex<Option<http::Response<Bytes>>>>,
}

impl Mutant {
    fn new(mutation: Mutation) -> Self {
        Self {
            inner: ReqwestTransport::builder()
                .total_timeout(Duration::from_secs(3))
                .build()
                .unwrap(),
            mutation,
            last: Arc::default(),
        }
    }

    async fn exchange(&self, mut request: http::Request<Bytes>) -> Answer {
        use Mutation::*;
        match self.mutation {
            ErrsOnFailure => {
                let answer = self.inner.send(request).await?;
                let fails = answer.status().is_server_error();
                if fails {
                    Err(TransportError::new(Kind::Interrupted))
                } else {
                    Ok(answer)
                }
            }
            ForgetsHeaders => {
                request.headers_mut().clear();
                self.inner.send(request).await
            }
            DecodesThePath => {
                *request.uri_mut() = request.uri().to_string().replace("%3A", ":").parse().unwrap();
                self.inner.send(request).await
            }
            MixesAnswersUp => {
                let answer = self.inner.send(request).await?;
                Ok(self.last.lock().await.replace(answer.clone()).unwrap_or(answer))
            }
            CallsEverythingInterrupted => {
                let answer = self.inner.send(request).await;
                answer.map_err(|_| TransportError::new(Kind::Interrupted))
            }
            GivesAllTheFirstAnswer if request.uri().path() != "/" => {
                // Those of one moment: all are at numbers.
                let answer = self.inner.send(request.clone()).await?;
                if !request.uri().path()[1..].bytes().all(|byte| byte.is_ascii_digit()) {
                    return Ok(answer);
                }
                Ok(self.last.lock().await.get_or_insert(answer).clone())
            }
            _ => self.fail(request).await,
        }
    }

    /// What is broken about exchanges that go wrong.
    async fn fail(&self, mut request: http::Request<Bytes>) -> Answer {
        use Mutation::*;
        match self.mutation {
            TakesTruncatedForWhole => match self.inner.send(request).await {
                Err(error) if error.kind() == Kind::Truncated => Ok(http::Response::default()),
                answer => answer,
            },
            ForgetsTheDeadline => {
                let deadline = request.extensions_mut().remove::<Deadline>();
                let answer = self.inner.send(request).await;
                // It hangs for as long as the suite waits, but for this.
                if deadline.is_some() {
                    Ok(http::Response::default())
                } else {
                    answer
                }
            }
            FollowsRedirects => match self.inner.send(request.clone()).await {
                Err(error) if error.kind() == Kind::Redirect => {
                    *request.uri_mut() = format!("http://{}", error.redirect_host().unwrap()).parse().unwrap();
                    self.inner.send(request).await
                }
                answer => answer,
            },
            RepeatsEverything => match self.inner.send(request.clone()).await {
                Err(error) if error.kind() == Kind::Interrupted => self.inner.send(request).await,
                answer => answer,
            },
            TellsTheUri => {
                let uri = request.uri().to_string();
                let answer = self.inner.send(request).await;
                answer.map_err(|error| match error.kind() {
                    Kind::Connect => TransportError::with_source(Kind::Connect, uri),
                    _ => error,
                })
            }
            GoesOnWhenDropped => {
                let inner = self.inner.clone();
                tokio::spawn(async move { inner.send(request).await }).await.unwrap()
            }
            _ => self.inner.send(request).await,
        }
    }
}

#[async_trait]
impl Transport for Mutant {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        self.exchange(request).await
    }

    fn streams(&self) -> Option<&dyn Streams> {
        Some(self)
    }
}

#[async_trait]
impl Streams for Mutant {
    async fn upload(&self, mut request: http::Request<Arc<dyn Source>>) -> Answer {
        let uri = request.uri().to_string();
        if self.mutation == Mutation::SendsAnotherFile {
            return self.inner.send(request.map(|_| Bytes::from_static(b"another"))).await;
        }
        if self.mutation == Mutation::ForgetsTheDeadlineOfFiles
            && request.extensions_mut().remove::<Deadline>().is_some()
        {
            return Ok(http::Response::default());
        }
        let answer = self.inner.upload(request.clone()).await;
        match (answer, self.mutation) {
            (Err(_), Mutation::BlamesTheNetwork) => Err(TransportError::new(Kind::Interrupted)),
            (Err(error), Mutation::RepeatsUploads) if error.kind() == Kind::Interrupted => {
                self.inner.upload(request).await
            }
            (Err(error), Mutation::FollowsRedirectsOfFiles) if error.kind() == Kind::Redirect => {
                *request.uri_mut() = format!("http://{}", error.redirect_host().unwrap()).parse().unwrap();
                self.inner.upload(request).await
            }
            (Err(error), Mutation::TellsTheUriOfFiles) if error.kind() == Kind::Connect => {
                Err(TransportError::with_source(Kind::Connect, uri))
            }
            (answer, _) => answer,
        }
    }

    async fn download(&self, request: http::Request<Bytes>, sink: &mut dyn Sink) -> Answer {
        match self.mutation {
            Mutation::ForgetsTheLastByteOfAFile => {
                sink.restart().await.unwrap();
                let answer = self.inner.send(request).await?;
                let (head, body) = answer.into_parts();
                sink.write(body.slice(..body.len().saturating_sub(1))).await.unwrap();
                Ok(http::Response::from_parts(head, Bytes::new()))
            }
            Mutation::TakesAnyFile => {
                sink.restart().await.unwrap();
                let answer = self.inner.send(request).await?;
                let (head, body) = answer.into_parts();
                sink.write(body).await.unwrap();
                Ok(http::Response::from_parts(head, Bytes::new()))
            }
            Mutation::PutsRefusalsIntoTheSink => {
                let answer = self.inner.download(request, sink).await?;
                if answer.status() == StatusCode::NOT_FOUND {
                    sink.write(answer.body().clone()).await.unwrap();
                }
                Ok(answer)
            }
            Mutation::IgnoresAFullDisk => self.inner.download(request, &mut Deaf(sink)).await,
            Mutation::TakesTruncatedFilesForWhole => match self.inner.download(request, sink).await {
                Err(error) if error.kind() == Kind::Truncated => Ok(http::Response::default()),
                answer => answer,
            },
            Mutation::GoesOnWithFilesWhenDropped => {
                let inner = self.inner.clone();
                let request = async move { inner.send(request).await };
                let answer = tokio::spawn(request).await.unwrap()?;
                sink.restart().await.unwrap();
                sink.write(answer.body().clone()).await.unwrap();
                Ok(answer)
            }
            _ => self.inner.download(request, sink).await,
        }
    }
}

/// A sink whose errors nobody hears of.
#[derive(Debug)]
struct Deaf<'a>(&'a mut dyn Sink);

#[async_trait]
impl Sink for Deaf<'_> {
    fn max_bytes(&self) -> u64 {
        self.0.max_bytes()
    }

    async fn restart(&mut self) -> std::io::Result<()> {
        self.0.restart().await
    }

    async fn write(&mut self, chunk: Bytes) -> std::io::Result<()> {
        let _unheard = self.0.write(chunk).await;
        Ok(())
    }
}

/// The clause that a mutant breaks.
fn broken(mutation: Mutation) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let run = || {
        runtime.block_on(async {
            let mutant = Mutant::new(mutation);
            let whole = tokio::time::timeout(Duration::from_secs(100), conformance::all(&mutant));
            whole.await.unwrap();
        });
    };
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    let words = panic.downcast_ref::<String>().unwrap().clone();
    let clause = words.strip_prefix("clause ").unwrap();
    Some(clause.split(' ').next().unwrap().to_owned())
}

#[test]
fn every_mutant_is_found_by_the_clause_that_it_breaks() {
    use Mutation::*;
    assert_eq!(broken(None), Option::None);
    for (mutation, clause) in [
        (ErrsOnFailure, "every_status_is_an_answer"),
        (ForgetsHeaders, "what_is_sent_arrives"),
        (DecodesThePath, "what_is_sent_arrives"),
        (MixesAnswersUp, "every_status_is_an_answer"),
        (CallsEverythingInterrupted, "nobody_there_is_told"),
        (TakesTruncatedForWhole, "a_truncated_answer_is_none"),
        (ForgetsTheDeadline, "silence_ends_at_the_deadline"),
        (FollowsRedirects, "a_redirect_is_not_followed"),
        (RepeatsEverything, "a_post_is_sent_once"),
        (TellsTheUri, "errors_tell_no_secret"),
        (ForgetsTheLastByteOfAFile, "a_file_arrives_whole"),
        (TakesAnyFile, "a_file_over_the_cap_is_refused"),
        (PutsRefusalsIntoTheSink, "a_refusal_is_no_file"),
        (BlamesTheNetwork, "a_broken_source_is_told"),
        (GivesAllTheFirstAnswer, "each_caller_has_its_own_answer"),
        (SendsAnotherFile, "a_file_is_sent_whole"),
        (IgnoresAFullDisk, "a_broken_sink_is_told"),
        (TakesTruncatedFilesForWhole, "a_truncated_file_is_none"),
        (ForgetsTheDeadlineOfFiles, "a_silent_file_ends_at_the_deadline"),
        (FollowsRedirectsOfFiles, "a_redirected_file_goes_nowhere"),
        (RepeatsUploads, "an_upload_is_sent_once"),
        (TellsTheUriOfFiles, "errors_about_files_tell_no_secret"),
    ] {
        assert_eq!(broken(mutation).as_deref(), Some(clause), "{mutation:?}");
    }
}

#[tokio::test]
async fn what_goes_on_when_dropped_is_found() {
    // Whoever waits for its connection to end waits in vain.
    let ends = async |mutation, patience| {
        let mutant = Mutant::new(mutation);
        let clause = conformance::a_dropped_call_ends_the_exchange(&mutant);
        tokio::time::timeout(Duration::from_secs(patience), clause)
            .await
            .is_ok()
    };
    assert!(ends(Mutation::None, 100).await);
    assert!(!ends(Mutation::GoesOnWhenDropped, 1).await);
    let ends = async |mutation, patience| {
        let mutant = Mutant::new(mutation);
        let clause = conformance::a_dropped_file_ends_the_exchange(&mutant);
        tokio::time::timeout(Duration::from_secs(patience), clause)
            .await
            .is_ok()
    };
    assert!(ends(Mutation::None, 100).await);
    assert!(!ends(Mutation::GoesOnWithFilesWhenDropped, 1).await);
}
