//! What is counted and measured, read as an application's recorder would.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use mx_transport::{Endpoint, Metrics, RateLimit};

use super::*;

/// Every metric with its labels, and what it was given.
#[derive(Clone, Debug, Default)]
struct Book(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

#[derive(Debug)]
struct Page(Book, String);

impl Page {
    fn note(&self, value: f64) {
        self.0.0.lock().unwrap().entry(self.1.clone()).or_default().push(value);
    }
}

impl CounterFn for Page {
    fn increment(&self, value: u64) {
        self.note(value as f64);
    }

    fn absolute(&self, value: u64) {
        self.note(value as f64);
    }
}

impl GaugeFn for Page {
    fn increment(&self, value: f64) {
        self.note(value);
    }

    fn decrement(&self, value: f64) {
        self.note(-value);
    }

    fn set(&self, value: f64) {
        self.note(value);
    }
}

impl HistogramFn for Page {
    fn record(&self, value: f64) {
        self.note(value);
    }
}

impl Book {
    fn page(&self, key: &Key) -> Arc<Page> {
        let mut labels: Vec<_> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        labels.sort();
        Arc::new(Page(
            self.clone(),
            format!("{} {}", key.name(), labels.join(" ")).trim().to_owned(),
        ))
    }

    fn sum(&self, name: &str) -> f64 {
        let book = self.0.lock().unwrap();
        let Some(page) = book.get(name) else {
            unreachable!("no {name} in {:#?}", book.keys())
        };
        page.iter().sum()
    }
}

impl Recorder for Book {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.page(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.page(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.page(key))
    }
}

const KEYS: &str = "/_matrix/client/v3/keys/query";

#[test]
fn what_goes_over_the_wire_is_counted_by_endpoint_and_outcome() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let book = Book::default();
    metrics::with_local_recorder(&book, || runtime.block_on(exchanges()));
    let count = |outcome: &str| {
        book.sum(&format!(
            "mx_transport_requests_total endpoint={KEYS} method=PUT outcome={outcome}"
        ))
    };
    assert_eq!((count("429"), count("200"), count("unreachable")), (1.0, 1.0, 1.0));
    let dropped = format!("mx_transport_requests_total endpoint={KEYS} method=PUT outcome=dropped");
    assert_eq!(book.sum(&dropped), 1.0);
    assert_eq!(book.sum(&format!("mx_transport_retries_total endpoint={KEYS}")), 1.0);
    assert_eq!(book.sum("mx_transport_rate_limited_total family=keys"), 1.0);
    assert_eq!(
        book.sum(&format!("mx_transport_sent_bytes_total endpoint={KEYS}")),
        4.0 * 7.0
    );
    assert_eq!(
        book.sum(&format!("mx_transport_received_bytes_total endpoint={KEYS}")),
        2.0 + 19.0
    );
    assert_eq!(book.sum("mx_transport_requests_under_way"), 0.0, "each has ended");
    assert!(book.sum("mx_transport_wait_seconds family=keys reason=retry") >= 0.05);
    assert!(book.sum(&format!("mx_transport_request_seconds endpoint={KEYS} outcome=200")) > 0.0);
    let book = book.0.lock().unwrap();
    assert!(book.keys().all(|name| !name.contains("secret")), "{:#?}", book.keys());
}

/// A refusal, its repetition, nobody there, and a call that was dropped.
async fn exchanges() {
    let server = server(|number, _| match number {
        0 => vec![answer(429, "retry-after: 0.05\r\n", b"{}")],
        1 => vec![answer(200, "", b"{\"device_keys\":{} }")],
        _ => vec![Step::Silence],
    })
    .await;
    let stack = Retry::new(RateLimit::new(Metrics::new(client())));
    let request = |url: &str| {
        let request = http::Request::put(format!("{url}{KEYS}?q=secret"));
        let mut request = request.body(Bytes::from_static(b"7 bytes")).unwrap();
        request.extensions_mut().insert(Endpoint(KEYS));
        request
    };
    stack.send(request(&server.url())).await.unwrap();
    Metrics::new(client())
        .send(request("http://127.0.0.1:1"))
        .await
        .unwrap_err();
    tokio::select! {
        _ = stack.send(request(&server.url())) => unreachable!("silence"),
        () = server.requests(3) => {}
    }
}
