//! One exchange: the fault that it meets, the brain's answer, the evil hooks, the oracle, the log.

use bytes::Bytes;

use crate::{
    Exchange, Homeserver,
    doors::patience,
    faults::{Hook, Kind, Outcome, Told},
    lock, log, oauth, reply,
    router::Parts,
    state::Session,
};

impl Homeserver {
    /// Take a request, and say what its sender is told of it.
    pub(crate) fn outcome(&self, request: &http::Request<Bytes>) -> Told {
        let parts = Parts::of(request);
        let path = request.uri().path().to_owned();
        let fault = lock(&self.0.plan).take(request.method(), &path);
        let session = {
            let state = lock(&self.0.state);
            let session = state.session(&parts).ok();
            lock(&self.0.oracle).request(&state, session.as_ref(), &parts);
            session
        };
        let told = self.suffer(&parts, fault);
        let outcome = self.rewritten(request, &path, told.outcome);
        // An answer that comes after its reader has gone was not given.
        if told.after < patience(request) {
            let state = lock(&self.0.state);
            lock(&self.0.oracle).answered(&state, session.as_ref(), &parts, &outcome);
        }
        self.note(request, parts, path, session, &outcome);
        self.0.news.notify_waiters();
        Told { outcome, ..told }
    }

    fn suffer(&self, parts: &Parts, fault: Option<Kind>) -> Told {
        let process = || {
            let mut state = lock(&self.0.state);
            let special = state.file(parts).or_else(|| state.of_authorization(parts));
            let special = special.or_else(|| state.single_sign_on(parts));
            special.unwrap_or_else(|| reply::response(state.answer(parts)))
        };
        let mut after = std::time::Duration::ZERO;
        let outcome = match fault {
            Some(Kind::DropBefore) => Outcome::Dropped,
            Some(Kind::DropAfter) => {
                process();
                Outcome::Dropped
            }
            Some(Kind::Status(status, body)) => Outcome::Answer(reply::raw(status, body.into())),
            Some(Kind::Truncate(length)) => Outcome::Answer(process().map(|body| body.slice(..length.min(body.len())))),
            Some(Kind::Body(body)) => Outcome::Answer(process().map(|_| body.into())),
            Some(Kind::Delay(by)) => {
                after = by;
                Outcome::Answer(process())
            }
            Some(Kind::Duplicate) => {
                process();
                Outcome::Answer(process())
            }
            None => Outcome::Answer(process()),
        };
        Told { outcome, after }
    }

    fn rewritten(&self, request: &http::Request<Bytes>, path: &str, mut outcome: Outcome) -> Outcome {
        let hooks: Vec<Hook> = lock(&self.0.hooks)
            .iter()
            .filter(|hook| path.contains(&hook.path))
            .cloned()
            .collect();
        for hook in hooks {
            if let Outcome::Answer(response) = outcome {
                outcome = Outcome::Answer((hook.rewrite)(request, response));
            }
        }
        outcome
    }

    fn note(
        &self,
        request: &http::Request<Bytes>,
        parts: Parts,
        path: String,
        session: Option<Session>,
        outcome: &Outcome,
    ) {
        let answer = match outcome {
            Outcome::Answer(answer) => Some(answer),
            Outcome::Dropped => None,
        };
        // What a file holds is no use in a log, and some hold much.
        let is_file = matches!(parts.endpoint().as_slice(), ["media", "upload" | "download", ..]);
        let shown = |body: &[u8]| match body.len() {
            length if is_file && length > 0 && !body.starts_with(b"{") => format!("<{length} bytes>").into(),
            _ => log::readable(body),
        };
        let request_body = if path.starts_with("/oauth/") && !request.body().starts_with(b"{") {
            oauth::readable(request.body())
        } else {
            shown(request.body())
        };
        let response_body = shown(answer.map(|answer| answer.body().as_ref()).unwrap_or_default());
        lock(&self.0.log).push(Exchange {
            method: parts.method.to_string(),
            path,
            query: parts
                .query
                .into_iter()
                .filter(|(name, _)| name != "access_token")
                .collect(),
            user: session.as_ref().map(|session| session.user.clone()),
            device: session.map(|session| session.device),
            request_body,
            status: answer.map(|answer| answer.status().as_u16()),
            response_body,
        });
    }
}
