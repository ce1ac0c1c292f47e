//! A gate on the way back from the homeserver: answers of some requests are held until a test lets them through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use mx_e2ee::transport::{Transport, TransportError};
use tokio::sync::watch;

/// Answers to requests whose path holds a piece of text, held or let through.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: String,
    open: watch::Sender<bool>,
    held: watch::Sender<usize>,
    most: AtomicUsize,
}

impl Gate {
    /// It is open.
    pub(crate) fn new(path: &str) -> Self {
        Self(Arc::new(Inner {
            path: path.to_owned(),
            open: watch::Sender::new(true),
            held: watch::Sender::new(0),
            most: AtomicUsize::new(0),
        }))
    }

    /// The same way with the gate in it.
    pub(crate) fn around(&self, inner: Arc<dyn Transport>) -> Arc<dyn Transport> {
        Arc::new(Way {
            inner,
            gate: self.clone(),
        })
    }

    pub(crate) fn close(&self) {
        self.0.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    /// Until this many requests were answered and have not come back.
    pub(crate) async fn held(&self, count: usize) {
        let mut held = self.0.held.subscribe();
        let waiting = held.wait_for(|held| *held == count);
        // What never comes is a failure, not a test that hangs.
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap()
            .unwrap();
    }

    /// How many requests were under way at once at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.0.most.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Way {
    inner: Arc<dyn Transport>,
    gate: Gate,
}

/// A request that is under way, until it is dropped.
struct UnderWay<'a>(&'a Inner);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}

#[async_trait]
impl Transport for Way {
    async fn send(&self, request: http::Request<bytes::Bytes>) -> Result<http::Response<bytes::Bytes>, TransportError> {
        let gate = &self.gate.0;
        if !request.uri().path().contains(&gate.path) {
            return self.inner.send(request).await;
        }
        let answer = self.inner.send(request).await;
        gate.held.send_modify(|held| {
            *held += 1;
            gate.most.fetch_max(*held, Ordering::SeqCst);
        });
        let _under_way = UnderWay(gate);
        let mut open = gate.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
        answer
    }
}
