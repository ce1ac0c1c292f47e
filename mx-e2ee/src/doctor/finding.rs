//! What a checkup says: findings, what was looked at and what was not, and figures.

use std::{collections::BTreeMap, fmt::Display};

use serde::Serialize;

use super::code::{FindingCode, Severity};
use crate::Error;

/// Something that is not as it should be.
///
/// ```no_run
/// # async fn example(client: mx_e2ee::Client) {
/// for finding in client.doctor().await.findings {
///     println!("{}: {}", finding.subject.as_deref().unwrap_or("this device"), finding.meaning);
///     for detail in &finding.details {
///         println!("  {detail}");
///     }
///     println!("  {}", finding.mend);
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Its stable name.
    pub code: FindingCode,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a room, a file. `None`: this device as a whole.
    pub subject: Option<String>,
    /// What it means, in one sentence.
    pub meaning: &'static str,
    /// What was found, one sentence each. It may hold text from the network.
    pub details: Vec<String>,
    /// The code of the error that showed it.
    pub cause: Option<String>,
    /// What mends it: a command, or what a person does.
    pub mend: &'static str,
    /// [`Checkup::fix`](super::Checkup::fix) mends it.
    pub fixable: bool,
    /// It was mended by this checkup.
    pub mended: bool,
    /// Why it could not be mended.
    pub not_mended: Option<String>,
}

impl Finding {
    pub(crate) const fn of(code: FindingCode) -> Self {
        Self {
            code,
            severity: code.severity(),
            subject: None,
            meaning: code.meaning(),
            details: Vec::new(),
            cause: None,
            mend: code.mend(),
            fixable: code.can_be_fixed(),
            mended: false,
            not_mended: None,
        }
    }

    pub(crate) fn about(mut self, subject: impl Display) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    pub(super) fn detail(mut self, detail: impl Display) -> Self {
        self.details.push(detail.to_string());
        self
    }

    /// With an error's code and words.
    pub(crate) fn because(mut self, error: &Error) -> Self {
        self.cause = Some(error.code().to_owned());
        self.detail(chain(error))
    }

    pub(super) fn caused_by(mut self, code: &str) -> Self {
        self.cause = Some(code.to_owned());
        self
    }

    fn is_same(&self, other: &Self) -> bool {
        self.code == other.code && self.subject == other.subject
    }
}

/// An error with what is below it, which says more about a disk or a network.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(source) = below {
        let words = source.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        below = source.source();
    }
    text
}

/// What a checkup looks at.
///
/// ```no_run
/// # async fn example(client: mx_e2ee::Client) {
/// use mx_e2ee::{Check, Looked};
///
/// // "Nothing was found" is worth nothing where nobody looked.
/// let found = client.doctor().await;
/// match found.checks.get(&Check::Keys) {
///     Some(Looked::Yes) => println!("{} one-time keys are left", found.facts.one_time_keys.unwrap_or_default()),
///     Some(Looked::No { because }) => println!("the keys were not looked at: {because}"),
///     _ => println!("the keys were not to be looked at"),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Check {
    /// The profile's files and its disk.
    Profile,
    /// The login.
    Login,
    /// The store, every record of it, and who else uses it.
    Store,
    /// The homeserver.
    Server,
    /// The clocks.
    Clock,
    /// The access token.
    Token,
    /// This device as others see it.
    Device,
    /// One-time keys and the fallback key.
    Keys,
    /// The account's identity.
    Identity,
    /// The key backup.
    Backup,
    /// Events that cannot be read.
    Undecryptable,
    /// What earlier exchanges showed.
    Health,
    /// Who can read in each room.
    Rooms,
}

impl Check {
    /// What cannot be looked at without a login.
    pub(super) const BEYOND_THE_DISK: &'static [Self] = &[
        Self::Store,
        Self::Server,
        Self::Clock,
        Self::Token,
        Self::Device,
        Self::Keys,
        Self::Identity,
        Self::Backup,
        Self::Undecryptable,
        Self::Health,
        Self::Rooms,
    ];

    /// What cannot be looked at without the store.
    pub(super) const OF_THE_STORE: &'static [Self] = &[
        Self::Store,
        Self::Device,
        Self::Keys,
        Self::Identity,
        Self::Backup,
        Self::Undecryptable,
        Self::Health,
        Self::Rooms,
    ];
}

/// Whether something was looked at.
///
/// ```
/// use mx_e2ee::Looked;
///
/// // As `mx doctor --json` prints it.
/// let not = Looked::No { because: "the homeserver does not answer".to_owned() };
/// let json = serde_json::json!({"looked": "no", "because": "the homeserver does not answer"});
/// assert_eq!(serde_json::to_value(&not)?, json);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "looked", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Looked {
    /// It was.
    Yes,
    /// It was not.
    No {
        /// Why not.
        because: String,
    },
}

/// Figures that go with the findings. `None`: not looked at, or not known.
///
/// ```no_run
/// # async fn example(client: mx_e2ee::Client) {
/// let facts = client.doctor().await.facts;
/// if let (Some(all), Some(in_backup)) = (facts.room_keys, facts.backed_up) {
///     println!("{} room keys are nowhere but here", all - in_backup);
/// }
/// println!("this clock is {} ms ahead", facts.clock_ahead_ms.unwrap_or_default());
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Facts {
    /// Free space on the profile's disk, in bytes.
    pub free_bytes: Option<u64>,
    /// The versions of the Matrix specification that the homeserver speaks.
    pub versions: Vec<String>,
    /// How far this machine's clock is ahead of the homeserver's, in milliseconds; negative: behind. To a second.
    pub clock_ahead_ms: Option<i64>,
    /// What the store takes on the disk, in bytes.
    pub store_bytes: Option<u64>,
    /// The store's schema.
    pub store_schema: Option<u32>,
    /// How many records the store has.
    pub store_records: Option<u64>,
    /// This device's fingerprint.
    pub fingerprint: Option<String>,
    /// One-time keys on the homeserver.
    pub one_time_keys: Option<u64>,
    /// One-time keys whose private half is here.
    pub one_time_keys_here: Option<u64>,
    /// The homeserver has an unused fallback key.
    pub fallback_key: Option<bool>,
    /// Room keys here.
    pub room_keys: Option<usize>,
    /// Of them, those in the backup.
    pub backed_up: Option<usize>,
    /// Events that wait for their keys.
    pub undecryptable: Option<u64>,
    /// Encrypted rooms that were looked at.
    pub encrypted_rooms: Option<usize>,
}

/// All that a checkup found.
///
/// ```no_run
/// # async fn example(client: mx_e2ee::Client) {
/// use mx_e2ee::{Looked, Severity};
///
/// let found = client.doctor().await;
/// let is_bad = found.worst() == Some(Severity::Error);
/// println!("bad: {is_bad}; one-time keys left: {:?}", found.facts.one_time_keys);
/// for (check, looked) in &found.checks {
///     if let Looked::No { because } = looked {
///         println!("{check:?} was not looked at: {because}");
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Findings {
    /// What is not as it should be, the worst first.
    pub findings: Vec<Finding>,
    /// What was looked at.
    pub checks: BTreeMap<Check, Looked>,
    /// Figures.
    pub facts: Facts,
}

impl Findings {
    /// How bad the worst finding is that is still there. `None`: everything that was looked at is well.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.standing().map(|finding| finding.severity).max()
    }

    /// Something of this code was found, and is still there.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) {
    /// use mx_e2ee::{Checkup, FindingCode};
    ///
    /// // What was mended is listed, and is not there any more.
    /// let found = client.doctor_with(Checkup::fixing()).await;
    /// let listed = found.findings.iter().any(|finding| finding.code == FindingCode::FewOneTimeKeys);
    /// println!("keys were short: {listed}; they still are: {}", found.has(FindingCode::FewOneTimeKeys));
    /// # }
    /// ```
    #[must_use]
    pub fn has(&self, code: FindingCode) -> bool {
        self.standing().any(|finding| finding.code == code)
    }

    fn standing(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.mended)
    }

    pub(super) fn any_to_fix(&self) -> bool {
        self.standing().any(|finding| finding.fixable)
    }

    /// What can be mended, each once.
    pub(super) fn to_fix(&self) -> Vec<FindingCode> {
        let mut codes: Vec<FindingCode> = self
            .standing()
            .filter(|finding| finding.fixable)
            .map(|finding| finding.code)
            .collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// Nothing was mended.
    pub(super) fn not_mended(mut self, why: &str) -> Self {
        for finding in self.findings.iter_mut().filter(|finding| finding.fixable) {
            finding.not_mended = Some(why.to_owned());
        }
        self
    }

    /// Add a finding, unless the same is there.
    pub(super) fn push(&mut self, finding: Finding) {
        if !self.findings.iter().any(|known| known.is_same(&finding)) {
            self.findings.push(finding);
        }
    }

    pub(super) fn looked(&mut self, check: Check) {
        self.checks.entry(check).or_insert(Looked::Yes);
    }

    pub(super) fn skipped(&mut self, check: Check, because: &str) {
        self.checks.entry(check).or_insert_with(|| Looked::No {
            because: because.to_owned(),
        });
    }

    pub(super) fn all_skipped(&mut self, checks: &[Check], because: &str) {
        for check in checks {
            self.skipped(*check, because);
        }
    }

    /// It was tried, and could not be looked at.
    pub(super) fn failed(&mut self, check: Check, error: &Error) {
        let name = serde_json::to_value(check).unwrap_or_default();
        let name = name.as_str().unwrap_or_default().to_owned();
        self.skipped(check, &chain(error));
        self.push(Finding::of(FindingCode::CheckFailed).about(name).because(error));
    }

    pub(super) fn sorted(mut self) -> Self {
        self.findings
            .sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.code));
        self
    }

    /// What was found again after mending; with it, what was there before and is not any more. What could not be looked at
    /// again is not taken for mended.
    pub(super) fn after(mut self, before: Self, failed: Vec<(FindingCode, String)>) -> Self {
        let unseen = before
            .checks
            .iter()
            .any(|(check, looked)| *looked == Looked::Yes && self.checks.get(check) != Some(&Looked::Yes));
        for (code, why) in &failed {
            for finding in self.findings.iter_mut().filter(|finding| finding.code == *code) {
                finding.not_mended = Some(why.clone());
            }
        }
        for mut finding in before.findings {
            if finding.fixable && !self.findings.iter().any(|known| known.is_same(&finding)) {
                let failed = failed.iter().find(|(code, _)| *code == finding.code);
                match failed {
                    Some((_, why)) => finding.not_mended = Some(why.clone()),
                    None if unseen => {
                        finding.not_mended = Some("what came of it could not be looked at".to_owned());
                    }
                    None => finding.mended = true,
                }
                self.findings.push(finding);
            }
        }
        self.sorted()
    }
}
