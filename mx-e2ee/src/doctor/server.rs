//! The homeserver: whether it answers, in which versions, by which clock, and whom it takes us for.

use std::time::{Duration, SystemTime};

use mx_transport::{Call, Homeserver, RequestError};
use ruma::api::client::{account::whoami, discovery::get_supported_versions};
use serde::Deserialize;

use super::{
    Checkup,
    code::FindingCode,
    finding::{Check, Finding, Findings},
};
use crate::{Error, Session};

/// How long each question may take: somebody waits for the answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far the homeserver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    /// It accepts our login.
    Fully,
    /// It is there.
    WithoutLogin,
    /// It is not.
    Never,
}

/// `login`: whose token the homeserver is asked with. `None`: there is none.
pub(super) async fn look(
    homeserver: &Homeserver,
    login: Option<&Session>,
    checkup: Checkup,
    found: &mut Findings,
) -> Answers {
    let asked = get_supported_versions::Request::new();
    let answer = match homeserver.exchange(asked, Call::repeatable().within(PATIENCE)).await {
        Ok(answer) => answer,
        Err(error) => {
            let error = Error::from(error);
            found.skipped(Check::Server, "it does not answer");
            found.all_skipped(&[Check::Clock, Check::Token], "the homeserver does not answer");
            let finding = Finding::of(FindingCode::ServerUnreachable).about(homeserver.base_url());
            found.push(finding.because(&error));
            return Answers::Never;
        }
    };
    found.looked(Check::Server);
    clock(&answer, checkup, found);
    versions(answer.body(), homeserver, found);
    let Some(login) = login else {
        found.skipped(Check::Token, "the token cannot be opened");
        return Answers::WithoutLogin;
    };
    token(homeserver, login, found).await
}

fn versions(body: &[u8], homeserver: &Homeserver, found: &mut Findings) {
    #[derive(Default, Deserialize)]
    struct Body {
        #[serde(default)]
        versions: Vec<String>,
    }
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let known = body.versions.iter().any(|version| {
        let mut numbers = version.trim_start_matches(['v', 'r']).split('.');
        let major = numbers.next();
        // Anything but a version of another major number can be spoken with.
        matches!(major, Some("0" | "1"))
    });
    if !known {
        let said = if body.versions.is_empty() {
            "it names none".to_owned()
        } else {
            format!("it names {}", body.versions.join(", "))
        };
        let finding = Finding::of(FindingCode::ServerVersions).about(homeserver.base_url());
        found.push(finding.detail(said));
    }
    found.facts.versions = body.versions;
}

fn clock(answer: &http::Response<impl AsRef<[u8]>>, checkup: Checkup, found: &mut Findings) {
    let date = answer.headers().get(http::header::DATE);
    let said = date
        .and_then(|date| date.to_str().ok())
        .and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(said) = said else {
        found.skipped(Check::Clock, "the homeserver's answer has no date");
        return;
    };
    found.looked(Check::Clock);
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let ahead = match SystemTime::now().duration_since(said) {
        Ok(ahead) => millis(ahead),
        Err(behind) => -millis(behind.duration()),
    };
    found.facts.clock_ahead_ms = Some(ahead);
    if ahead.unsigned_abs() > checkup.most_skew_ms {
        let which = if ahead > 0 { "ahead of" } else { "behind" };
        let detail = format!(
            "this machine's clock is {} seconds {which} the homeserver's",
            ahead.unsigned_abs() / 1000
        );
        found.push(Finding::of(FindingCode::ClockSkew).detail(detail));
    }
}

async fn token(homeserver: &Homeserver, login: &Session, found: &mut Findings) -> Answers {
    let asked = whoami::v3::Request::new();
    let me = match homeserver.send_with(asked, Call::repeatable().within(PATIENCE)).await {
        Ok(me) => me,
        Err(error) => {
            let refused = matches!(error, RequestError::LoggedOut { .. } | RequestError::NoAccessToken)
                || matches!(&error, RequestError::Api { status, .. } if matches!(status.as_u16(), 401 | 403));
            let error = Error::from(error);
            if refused {
                found.looked(Check::Token);
                found.push(Finding::of(FindingCode::LoginRefused).because(&error));
                return Answers::WithoutLogin;
            }
            found.failed(Check::Token, &error);
            return Answers::Never;
        }
    };
    found.looked(Check::Token);
    let another = me.user_id != login.user_id || me.device_id.as_ref().is_some_and(|device| *device != login.device_id);
    if another {
        let device = me.device_id.as_deref().map_or("none", |device| device.as_str());
        let detail = format!(
            "the homeserver takes us for {} device {device}, and the login is of {} device {}",
            me.user_id, login.user_id, login.device_id
        );
        found.push(Finding::of(FindingCode::LoginOfAnother).detail(detail));
        return Answers::WithoutLogin;
    }
    Answers::Fully
}
