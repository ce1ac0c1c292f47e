//! Faults by name: what a network does, for tests and for drills.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};

use crate::{
    Phase, Transport, TransportError, TransportErrorKind as Kind,
    layer::{Answer, Job, Layer, transport},
};

/// A transport that lets go wrong what it was told to. Of a file the exchange goes wrong, its content does not. Clones share
/// what is still to happen, so that one is kept in hand while the other is in use.
///
/// ```
/// # use mx_transport::{Fault, Faults, Transport};
/// # fn example(inner: impl Transport + Clone) {
/// let faults = Faults::new(inner);
/// faults.add(Fault::drop_after("/send/m.room.encrypted/").named("the answer to the second event is lost").nth(2));
/// faults.add(Fault::status("/keys/claim", 429, r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":5}"#).times(3));
/// let transport = faults.clone();
/// # drop(transport);
/// // … the test, and what has happened in it:
/// assert!(faults.happened().is_empty());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Faults<T> {
    inner: T,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    faults: Vec<Fault>,
    happened: Vec<String>,
}

/// Something that goes wrong with one request: the next one whose path holds a piece of text (`""`: any).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[derive(Debug, Clone)]
/// # struct Server;
/// # #[async_trait::async_trait]
/// # impl mx_transport::Transport for Server {
/// #     async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Bytes>, mx_transport::TransportError> {
/// #         Ok(http::Response::new("{}".into()))
/// #     }
/// # }
///
/// # use bytes::Bytes;
/// use mx_transport::{Fault, Faults, Transport};
///
/// # let server = Server;
/// let faults = Faults::new(server);
/// faults.add(Fault::drop_after("/send/").named("the answer is lost"));
/// let put = || http::Request::put("https://hs.test/_matrix/client/v3/rooms/!r/send/m.room.message/1").body(Bytes::new());
/// assert_eq!(faults.send(put()?).await.unwrap_err().code(), "interrupted");
/// assert!(faults.send(put()?).await?.status().is_success(), "once is enough");
/// assert_eq!(faults.happened(), ["the answer is lost"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    name: Option<String>,
    path: String,
    method: Option<Method>,
    skip: usize,
    times: usize,
    kind: What,
}

#[derive(Clone, Debug)]
enum What {
    DropBefore,
    DropAfter,
    Fail(Kind),
    Status(StatusCode, Bytes),
    Body(Bytes),
    Truncate(usize),
    Delay(Duration),
    Duplicate,
}

impl Fault {
    fn new(path: &str, kind: What) -> Self {
        Self {
            name: None,
            path: path.to_owned(),
            method: None,
            skip: 0,
            times: 1,
            kind,
        }
    }

    /// The request never arrives, and the connection breaks.
    ///
    /// ```
    /// use mx_transport::Fault;
    ///
    /// // The first event never arrives; sent again, it is the first one that the server sees.
    /// let fault = Fault::drop_before("/send/").named("the event is lost");
    /// # drop(fault);
    /// ```
    #[must_use]
    pub fn drop_before(path: &str) -> Self {
        Self::new(path, What::DropBefore)
    }

    /// The request is processed, and the connection breaks before its answer.
    #[must_use]
    pub fn drop_after(path: &str) -> Self {
        Self::new(path, What::DropAfter)
    }

    /// The request never arrives, and fails like this.
    ///
    /// ```
    /// use mx_transport::{Fault, Phase, TransportErrorKind};
    ///
    /// // A server that takes a connection and says nothing: the client gives up, and cannot know what was done.
    /// let fault = Fault::fail("/keys/claim", TransportErrorKind::Timeout(Phase::Headers)).times(2);
    /// # drop(fault);
    /// ```
    #[must_use]
    pub fn fail(path: &str, kind: Kind) -> Self {
        Self::new(path, What::Fail(kind))
    }

    /// The request is answered with this status and body, and never arrives. A status that is none is 500.
    #[must_use]
    pub fn status(path: &str, status: u16, body: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(path, What::Status(status, Bytes::copy_from_slice(body.as_bytes())))
    }

    /// The request is processed, and its answer has another body.
    #[must_use]
    pub fn body(path: &str, body: &str) -> Self {
        Self::new(path, What::Body(Bytes::copy_from_slice(body.as_bytes())))
    }

    /// The request is processed, and the body of its answer ends after `bytes` bytes, as if it were whole.
    ///
    /// ```
    /// use mx_transport::Fault;
    ///
    /// // Half of an answer is no answer: what reads it has to refuse it, and not to take what is there.
    /// let fault = Fault::truncate("/sync", 100).nth(2);
    /// # drop(fault);
    /// ```
    #[must_use]
    pub fn truncate(path: &str, bytes: usize) -> Self {
        Self::new(path, What::Truncate(bytes))
    }

    /// The request arrives this much later, on tokio's clock. One whose deadline is over by then never arrives.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::Method;
    /// use mx_transport::Fault;
    ///
    /// // The second message overtakes the first. With tokio's clock paused, nobody waits for it.
    /// let fault = Fault::delay("/send/", Duration::from_secs(5)).method(Method::PUT);
    /// # drop(fault);
    /// ```
    #[must_use]
    pub fn delay(path: &str, by: Duration) -> Self {
        Self::new(path, What::Delay(by))
    }

    /// The request is processed twice, and the second answer arrives.
    ///
    /// ```
    /// use mx_transport::Fault;
    ///
    /// // A proxy that sends again: the transaction id has to make one event of the two.
    /// let fault = Fault::duplicate("/send/m.room.encrypted/");
    /// # drop(fault);
    /// ```
    #[must_use]
    pub fn duplicate(path: &str) -> Self {
        Self::new(path, What::Duplicate)
    }

    /// How it is called in [`Faults::happened`].
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    /// The `n`-th request that fits, counted from 1, instead of the first.
    #[must_use]
    pub const fn nth(mut self, n: usize) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// This many requests, one after the other.
    #[must_use]
    pub const fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Every request from then on.
    #[must_use]
    pub const fn for_ever(self) -> Self {
        self.times(usize::MAX)
    }

    fn fits(&self, job: &Job<'_>) -> bool {
        self.times > 0
            && job.path().contains(&self.path)
            && self.method.as_ref().is_none_or(|only| only == job.method())
    }

    fn shown(&self) -> String {
        let named = self.name.clone();
        named.unwrap_or_else(|| format!("{:?} {}", self.kind, self.path))
    }
}

impl<T: Transport> Faults<T> {
    /// Nothing goes wrong with what goes through `inner`, until it is told to.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            plan: Arc::default(),
        }
    }

    /// Let this go wrong. Of several faults that are due for a request the one happens that was added first.
    pub fn add(&self, fault: Fault) {
        self.plan().faults.push(fault);
    }

    /// Let nothing go wrong any more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let transcript = [r#"{"mx-transcript":1}"#, r#"{"method":"GET","path":"/sync","answer":{"status":200}}"#].join("\n");
    /// # let server = mx_transport::Replay::from_transcript(&transcript)?;
    /// use bytes::Bytes;
    /// use mx_transport::{Fault, Faults, Transport};
    ///
    /// let faults = Faults::new(server);
    /// faults.add(Fault::drop_before("/sync").for_ever());
    /// let sync = || http::Request::get("https://hs.test/sync").body(Bytes::new());
    /// assert!(faults.send(sync()?).await.is_err());
    /// assert!(faults.send(sync()?).await.is_err(), "and so it goes on");
    /// // The network is back.
    /// faults.behave();
    /// assert!(faults.send(sync()?).await?.status().is_success());
    /// # Ok(()) }
    /// ```
    pub fn behave(&self) {
        self.plan().faults.clear();
    }

    /// What has happened, by name, in its order.
    #[must_use]
    pub fn happened(&self) -> Vec<String> {
        self.plan().happened.clone()
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delayed(&self, job: &mut Job<'_>, by: Duration) -> Answer {
        let in_time = job.deadline().is_none_or(|deadline| by < deadline);
        tokio::time::sleep(job.deadline().map_or(by, |deadline| by.min(deadline))).await;
        if !in_time {
            return Err(TransportError::new(Kind::Timeout(Phase::Headers)));
        }
        job.spend(by);
        job.run(&self.inner).await
    }
}

impl Plan {
    /// Count this request for every fault that it fits, and take the first one that is due.
    fn take(&mut self, job: &Job<'_>) -> Option<What> {
        let mut due = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.fits(job)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if due.is_none() {
                // For ever is never counted down.
                fault.times -= usize::from(fault.times != usize::MAX);
                self.happened.push(fault.shown());
                due = Some(fault.kind.clone());
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        due
    }
}

transport!(Faults);

#[async_trait]
impl<T: Transport> Layer for Faults<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let due = self.plan().take(job);
        match due {
            None => job.run(&self.inner).await,
            Some(What::DropBefore) => Err(TransportError::new(Kind::Interrupted)),
            Some(What::DropAfter) => {
                job.run(&self.inner).await?;
                Err(TransportError::new(Kind::Interrupted))
            }
            Some(What::Fail(kind)) => Err(TransportError::new(kind)),
            Some(What::Status(status, body)) => {
                let mut response = http::Response::new(body);
                *response.status_mut() = status;
                Ok(response)
            }
            Some(What::Body(body)) => Ok(job.run(&self.inner).await?.map(|_| body)),
            Some(What::Truncate(bytes)) => {
                let answer = job.run(&self.inner).await?;
                Ok(answer.map(|body| body.slice(..body.len().min(bytes))))
            }
            Some(What::Delay(by)) => self.delayed(job, by).await,
            Some(What::Duplicate) => {
                job.run(&self.inner).await?;
                job.run(&self.inner).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::Deadline;

    /// Answers with how many requests it has seen.
    #[derive(Debug, Default)]
    struct Counting(Arc<Mutex<u32>>, Mutex<Option<Duration>>);

    #[async_trait]
    impl Transport for Counting {
        async fn send(&self, request: http::Request<Bytes>) -> Answer {
            *self.1.lock().unwrap() = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
            let mut seen = self.0.lock().unwrap();
            *seen += 1;
            Ok(http::Response::new(format!("{{\"seen\":{seen}}}").into()))
        }
    }

    fn request(method: Method, path: &str) -> http::Request<Bytes> {
        let request = http::Request::builder().method(method);
        request
            .uri(format!("https://hs.test{path}"))
            .body(Bytes::new())
            .unwrap()
    }

    /// What comes of the next request, in a word, and how many were seen by then.
    async fn next(faults: &Faults<Counting>, path: &str) -> (String, u32) {
        let answer = faults.send(request(Method::PUT, path)).await;
        let word = match answer {
            Ok(answer) => format!(
                "{} {}",
                answer.status().as_u16(),
                String::from_utf8_lossy(answer.body())
            ),
            Err(error) => format!("{:?}", error.kind()),
        };
        (word, *faults.inner.0.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_fault_does_what_its_name_says() {
        let faults = Faults::new(Counting::default());
        for (fault, word, seen) in [
            (Fault::drop_before("/x"), "Interrupted", 0),
            (Fault::drop_after("/x"), "Interrupted", 1),
            (Fault::fail("/x", Kind::Tls), "Tls", 1),
            (Fault::status("/x", 503, "no"), "503 no", 1),
            (Fault::status("/x", 7, "no"), "500 no", 1),
            (Fault::body("/x", "[]"), "200 []", 2),
            (Fault::truncate("/x", 3), "200 {\"s", 3),
            (Fault::truncate("/x", 300), "200 {\"seen\":4}", 4),
            (Fault::duplicate("/x"), "200 {\"seen\":6}", 6),
        ] {
            faults.add(fault.clone());
            assert_eq!(next(&faults, "/x").await, (word.to_owned(), seen), "{fault:?}");
        }
        assert_eq!(next(&faults, "/x").await.0, "200 {\"seen\":7}", "each happened once");
        assert_eq!(faults.happened().len(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_has_a_name_a_turn_and_a_number() {
        let faults = Faults::new(Counting::default());
        faults.add(
            Fault::drop_before("/x")
                .method(Method::PUT)
                .named("twice")
                .nth(2)
                .times(2),
        );
        faults.send(request(Method::GET, "/x")).await.unwrap();
        let mut words = Vec::new();
        for path in ["/x", "/y", "/x", "/x", "/x"] {
            words.push(next(&faults, path).await.0.starts_with("200"));
        }
        assert_eq!(words, [true, true, false, false, true]);
        assert_eq!(faults.happened(), ["twice", "twice"]);
        faults.add(Fault::drop_before("").for_ever());
        for _ in 0..100 {
            assert_eq!(next(&faults, "/y").await.0, "Interrupted");
        }
        faults.behave();
        assert!(next(&faults, "/y").await.0.starts_with("200"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_delayed_beyond_its_deadline_never_arrives() {
        let faults = Faults::new(Counting::default());
        faults.add(Fault::delay("/x", Duration::from_secs(9)).times(2));
        let begun = Instant::now();
        assert_eq!(next(&faults, "/x").await.1, 1);
        assert_eq!(begun.elapsed(), Duration::from_secs(9));
        let with_deadline = |seconds| {
            let mut request = request(Method::PUT, "/x");
            request.extensions_mut().insert(Deadline(Duration::from_secs(seconds)));
            request
        };
        let error = faults.send(with_deadline(4)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout(Phase::Headers));
        assert_eq!(begun.elapsed(), Duration::from_secs(13));
        assert_eq!(*faults.inner.0.lock().unwrap(), 1);
        // What is late is late for whoever comes after, too.
        faults.add(Fault::delay("/x", Duration::from_secs(9)));
        faults.send(with_deadline(10)).await.unwrap();
        assert_eq!(*faults.inner.1.lock().unwrap(), Some(Duration::from_secs(1)));
    }
}
