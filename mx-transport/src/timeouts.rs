//! How long a request may take, by what it is about.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use crate::{
    Deadline, Family, Phase, Transport, TransportError, TransportErrorKind as Kind,
    layer::{Answer, Job, Layer, transport},
};

/// What is inside may say itself, and better, that the time is up.
const GRACE: Duration = Duration::from_millis(250);

/// A transport whose requests end in time, whatever is inside.
///
/// A request without a [`Deadline`] is given that of its [`Family`], or the general one. A longer one than
/// [`at_most`](Self::at_most) is cut. The whole exchange is ended at that time also where what is inside pays no heed to
/// deadlines ([`Phase::Total`]). The limits of single phases are the client's own: only it knows them.
///
/// Around [`Retry`](crate::Retry) it bounds all attempts together, inside it each one.
///
/// ```
/// # use std::time::Duration;
/// # use mx_transport::{Family, Retry, Timeouts, Transport};
/// # fn example(client: impl Transport) {
/// // Joining a large room takes its time, with all attempts together.
/// let bounded = Timeouts::new(Retry::new(client)).of_family(Family::Rooms, Duration::from_secs(180));
/// # drop(bounded);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Timeouts<T> {
    inner: T,
    total: Option<Duration>,
    families: BTreeMap<Family, Duration>,
    at_most: Duration,
}

impl<T: Transport> Timeouts<T> {
    /// No request without a [`Deadline`] is given one until that is said, and none takes longer than a day.
    pub const fn new(inner: T) -> Self {
        Self {
            inner,
            total: None,
            families: BTreeMap::new(),
            at_most: Duration::from_secs(24 * 60 * 60),
        }
    }

    /// What a request may take that has no [`Deadline`].
    #[must_use]
    pub const fn total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// What a request of this family may take that has no [`Deadline`].
    #[must_use]
    pub fn of_family(mut self, family: Family, total: Duration) -> Self {
        self.families.insert(family, total);
        self
    }

    /// What any request may take, whatever its [`Deadline`]. Default: a day.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mx_transport::{Timeouts, Transport};
    /// # fn example(client: impl Transport) {
    /// // Half a minute where nothing else is said, and five whatever is said.
    /// let bounded = Timeouts::new(client).total(Duration::from_secs(30)).at_most(Duration::from_secs(300));
    /// # drop(bounded);
    /// # }
    /// ```
    #[must_use]
    pub const fn at_most(mut self, at_most: Duration) -> Self {
        self.at_most = at_most;
        self
    }
}

transport!(Timeouts);

#[async_trait]
impl<T: Transport> Layer for Timeouts<T> {
    fn inner(&self) -> &dyn Transport {
        &self.inner
    }

    async fn carry(&self, job: &mut Job<'_>) -> Answer {
        let own = job.deadline();
        let total = own.or_else(|| self.families.get(&job.family()).copied()).or(self.total);
        if let Some(total) = total {
            job.extensions_mut().insert(Deadline(total.min(self.at_most)));
        }
        let end = total.map_or(self.at_most, |total| total.min(self.at_most));
        job.waits_at_most(end);
        tokio::time::timeout(end.saturating_add(GRACE), job.run(&self.inner))
            .await
            .unwrap_or_else(|_| Err(TransportError::new(Kind::Timeout(Phase::Total))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;

    /// Notes the deadlines, and is silent for ever.
    #[derive(Debug, Default)]
    struct Silent(Mutex<Vec<Option<Duration>>>);

    #[async_trait]
    impl Transport for &Silent {
        async fn send(&self, request: http::Request<Bytes>) -> Answer {
            let deadline = request.extensions().get::<Deadline>();
            self.0.lock().unwrap().push(deadline.map(|deadline| deadline.0));
            std::future::pending().await
        }
    }

    fn request(path: &str, deadline: Option<u64>) -> http::Request<Bytes> {
        let mut request = http::Request::get(format!("https://hs.test/_matrix/{path}"))
            .body(Bytes::new())
            .unwrap();
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(Deadline(Duration::from_secs(deadline)));
        }
        request
    }

    #[tokio::test(start_paused = true)]
    async fn every_exchange_ends_and_a_family_has_a_time_of_its_own() {
        let silent = Silent::default();
        let seconds = Duration::from_secs;
        let timeouts = Timeouts::new(&silent)
            .total(seconds(20))
            .of_family(Family::Media, seconds(300))
            .at_most(seconds(200));
        for (path, own, expected) in [
            ("client/v3/login", None, 20),
            ("media/v3/upload", None, 200),
            ("media/v3/upload", Some(50), 50),
            ("client/v3/sync", Some(40), 40),
            ("client/v3/sync", Some(4000), 200),
        ] {
            let begun = Instant::now();
            let error = timeouts.send(request(path, own)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Timeout(Phase::Total));
            assert_eq!((Instant::now() - begun).as_secs(), expected, "{path}");
            assert_eq!(silent.0.lock().unwrap().pop(), Some(Some(seconds(expected))), "{path}");
        }
        let begun = Instant::now();
        let timeouts = Timeouts::new(&silent).at_most(seconds(10));
        timeouts.send(request("client/v3/login", None)).await.unwrap_err();
        assert_eq!((Instant::now() - begun).as_secs(), 10);
        assert_eq!(
            silent.0.lock().unwrap().pop(),
            Some(None),
            "nobody has said how long it may take"
        );
    }
}
