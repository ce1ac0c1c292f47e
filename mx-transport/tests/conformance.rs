//! The suite over the client, every wrapper, and stacks of them that make sense.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{header::AUTHORIZATION, uri::PathAndQuery};
use mx_transport::{
    AccessToken, BodyCap, Family, Faults, Metrics, RateLimit, Record, RequestLog, ReqwestTransport, Retry, Sink,
    Source, Streams, Timeouts, TokenRefresh, Tokens, Transport, TransportError, conformance,
};

const LARGE: u64 = 100_000_000;

fn client() -> ReqwestTransport {
    ReqwestTransport::builder().build().unwrap()
}

fn patient<T: Transport>(inner: T) -> Retry<T> {
    Retry::new(inner).pauses(Duration::from_millis(1), Duration::from_millis(2))
}

async fn conforms(transport: impl Transport) {
    let report = conformance::all(&transport).await;
    assert_eq!(report.passed().len(), 22);
    assert!(report.skipped().is_empty());
}

#[tokio::test]
async fn the_client_conforms() {
    conforms(client()).await;
}

#[tokio::test]
async fn a_client_behind_a_pointer_conforms() {
    let client: Arc<dyn Transport> = Arc::new(client());
    conforms(client).await;
}

#[tokio::test]
async fn retry_conforms() {
    conforms(patient(client())).await;
}

#[tokio::test]
async fn rate_limit_conforms() {
    conforms(RateLimit::new(client()).limit(Family::Other, 1000, Duration::from_millis(1))).await;
}

#[tokio::test]
async fn timeouts_conform() {
    conforms(Timeouts::new(client()).total(Duration::from_secs(50))).await;
}

type Answer = Result<http::Response<Bytes>, TransportError>;

/// A [`TokenRefresh`] for each server of the suite. What is asked of it is of its client API, since it would get no token else;
/// the server sees the path as the suite has it.
#[derive(Debug)]
struct WithToken<T>(Arc<Given<T>>);

/// What is inside: every request that comes here was given the token.
#[derive(Debug)]
struct Given<T> {
    inner: T,
    requests: AtomicUsize,
}

const API: &str = "/_matrix/client";

fn at<B>(mut request: http::Request<B>, path: impl Fn(&str) -> String) -> http::Request<B> {
    let mut parts = request.uri().clone().into_parts();
    let whole = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
    parts.path_and_query = Some(path(whole).parse().unwrap());
    *request.uri_mut() = http::Uri::from_parts(parts).unwrap();
    request
}

impl<T: Transport + 'static> WithToken<T> {
    fn new(inner: T) -> Self {
        let requests = AtomicUsize::new(0);
        Self(Arc::new(Given { inner, requests }))
    }

    fn of<B>(&self, request: http::Request<B>) -> (TokenRefresh<Arc<dyn Transport>>, http::Request<B>) {
        let base = format!("http://{}", request.uri().authority().unwrap());
        let tokens = Tokens::from(AccessToken::new("a-token").unwrap());
        let inner = Arc::clone(&self.0) as Arc<dyn Transport>;
        let transport = TokenRefresh::new(&base, inner, tokens, None).unwrap();
        (transport, at(request, |path| format!("{API}{path}")))
    }
}

#[async_trait]
impl<T: Transport + 'static> Transport for WithToken<T> {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        let (transport, request) = self.of(request);
        transport.send(request).await
    }

    fn streams(&self) -> Option<&dyn Streams> {
        self.0.inner.streams().is_some().then_some(self)
    }
}

#[async_trait]
impl<T: Transport + 'static> Streams for WithToken<T> {
    async fn upload(&self, request: http::Request<Arc<dyn Source>>) -> Answer {
        let (transport, request) = self.of(request);
        transport.streams().unwrap().upload(request).await
    }

    async fn download(&self, request: http::Request<Bytes>, sink: &mut dyn Sink) -> Answer {
        let (transport, request) = self.of(request);
        transport.streams().unwrap().download(request, sink).await
    }
}

impl<T> Given<T> {
    fn without_prefix<B>(&self, request: http::Request<B>) -> http::Request<B> {
        assert!(request.headers().contains_key(AUTHORIZATION), "{}", request.uri());
        self.requests.fetch_add(1, Ordering::SeqCst);
        at(request, |path| path.strip_prefix(API).unwrap().to_owned())
    }
}

#[async_trait]
impl<T: Transport> Transport for Given<T> {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        self.inner.send(self.without_prefix(request)).await
    }

    fn streams(&self) -> Option<&dyn Streams> {
        self.inner.streams().is_some().then_some(self)
    }
}

#[async_trait]
impl<T: Transport> Streams for Given<T> {
    async fn upload(&self, request: http::Request<Arc<dyn Source>>) -> Answer {
        let request = self.without_prefix(request);
        self.inner.streams().unwrap().upload(request).await
    }

    async fn download(&self, request: http::Request<Bytes>, sink: &mut dyn Sink) -> Answer {
        let request = self.without_prefix(request);
        self.inner.streams().unwrap().download(request, sink).await
    }
}

#[tokio::test]
async fn token_refresh_conforms() {
    let transport = WithToken::new(client());
    let given = Arc::clone(&transport.0);
    conforms(transport).await;
    assert!(
        given.requests.load(Ordering::SeqCst) > 22,
        "each clause went through it"
    );
}

#[tokio::test]
async fn body_cap_conforms() {
    conforms(BodyCap::new(client(), LARGE)).await;
}

#[tokio::test]
async fn request_log_conforms() {
    conforms(RequestLog::new(client())).await;
}

#[tokio::test]
async fn metrics_conform() {
    conforms(Metrics::new(client())).await;
}

#[tokio::test]
async fn faults_that_have_nothing_to_do_conform() {
    conforms(Faults::new(client())).await;
}

#[tokio::test]
async fn record_conforms() {
    conforms(Record::in_memory(client())).await;
}

#[tokio::test]
async fn the_stack_of_the_facade_with_a_token_conforms() {
    let inner = BodyCap::new(Metrics::new(RequestLog::new(client())), LARGE);
    let stack = Timeouts::new(patient(RateLimit::new(inner))).total(Duration::from_secs(50));
    conforms(WithToken::new(stack)).await;
}

#[tokio::test]
async fn a_stack_in_another_order_conforms() {
    let inner = RequestLog::new(Timeouts::new(RateLimit::new(BodyCap::new(client(), LARGE))));
    conforms(Metrics::new(Record::in_memory(patient(Faults::new(inner))))).await;
}

/// A client without files.
#[derive(Debug)]
struct Plain(ReqwestTransport);

#[async_trait::async_trait]
impl Transport for Plain {
    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        self.0.send(request).await
    }
}

#[tokio::test]
async fn what_carries_no_files_is_told_by_every_wrapper() {
    let report = conformance::all(&Timeouts::new(patient(RateLimit::new(Plain(client()))))).await;
    assert_eq!(report.passed().len(), 10);
    assert_eq!(report.skipped()[0].clause, "the clauses about files");
    assert!(BodyCap::new(Plain(client()), LARGE).streams().is_none());
    assert!(RequestLog::new(Plain(client())).streams().is_none());
    assert!(Metrics::new(Plain(client())).streams().is_none());
    assert!(Faults::new(Plain(client())).streams().is_none());
    assert!(Record::in_memory(Plain(client())).streams().is_none());
}
