//! The suite over the client, every wrapper, and stacks of them that make sense.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use mx_transport::{
    AccessToken, BodyCap, Family, Faults, Metrics, RateLimit, Record, RequestLog, ReqwestTransport, Retry, Timeouts,
    TokenRefresh, Tokens, Transport, conformance,
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

#[tokio::test]
async fn token_refresh_conforms() {
    let tokens = Tokens::from(AccessToken::new("a-token").unwrap());
    conforms(TokenRefresh::new("https://hs.test", client(), tokens, None).unwrap()).await;
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
async fn the_stack_of_the_facade_conforms() {
    let inner = BodyCap::new(Metrics::new(RequestLog::new(client())), LARGE);
    conforms(Timeouts::new(patient(RateLimit::new(inner))).total(Duration::from_secs(50))).await;
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
    async fn send(
        &self,
        request: http::Request<bytes::Bytes>,
    ) -> Result<http::Response<bytes::Bytes>, mx_transport::TransportError> {
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
