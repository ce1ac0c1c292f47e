//! A checkup: why can they not read me, why can I not read them; each answer with a name, a meaning and what mends it.
//!
//! # Why
//! What breaks an encrypted client is seldom where it shows. A checkup looks at everything between this disk and the
//! devices of others, goes on where half of it is broken, changes nothing unless it is asked to, and mends on its own only
//! what costs nobody anything.

mod code;
mod device;
mod finding;
mod local;
mod rooms;
mod server;
mod words;

use std::path::Path;

pub use self::{
    code::{FindingCode, Severity},
    finding::{Check, Facts, Finding, Findings, Looked},
};
use crate::{Client, ClientBuilder, Error, Result, builder::Held, session};

/// How to look.
///
/// ```no_run
/// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
/// use mx_e2ee::Checkup;
///
/// // Often, as for a monitor: without the look at every room.
/// let mut checkup = Checkup::default();
/// checkup.rooms = false;
/// println!("{:?}", client.doctor_with(checkup).await.worst());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkup {
    /// Mend what is safe to mend, and look again.
    pub fix: bool,
    /// Look at who can read in each encrypted room. Default: yes.
    pub rooms: bool,
    /// Less free space than this on the profile's disk, in bytes, is a finding. Default: 256 MiB.
    pub least_free_bytes: u64,
    /// Clocks that differ by more than this, in milliseconds, are a finding. Default: two minutes.
    pub most_skew_ms: u64,
}

impl Default for Checkup {
    fn default() -> Self {
        Self {
            fix: false,
            rooms: true,
            least_free_bytes: 256 << 20,
            most_skew_ms: 120_000,
        }
    }
}

impl Checkup {
    /// Look, and mend what is safe to mend.
    ///
    /// ```
    /// use mx_e2ee::Checkup;
    ///
    /// assert_eq!(Checkup::fixing(), { let mut checkup = Checkup::default(); checkup.fix = true; checkup });
    /// ```
    #[must_use]
    pub fn fixing() -> Self {
        Self {
            fix: true,
            ..Self::default()
        }
    }
}

impl Client {
    /// Look at everything that may keep others from reading us, or us from reading them. Nothing is changed.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) {
    /// for finding in client.doctor().await.findings {
    ///     println!("{} [{}]: {}", finding.severity.name(), finding.code.code(), finding.mend);
    /// }
    /// # }
    /// ```
    pub async fn doctor(&self) -> Findings {
        self.doctor_with(Checkup::default()).await
    }

    /// As [`doctor`](Self::doctor), looking in a certain way. With [`Checkup::fix`], what is safe to mend is mended: keys
    /// are published, what waits is tried again, the backup is filled, files are closed to others.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) {
    /// for finding in client.doctor_with(mx_e2ee::Checkup::fixing()).await.findings {
    ///     let done = if finding.mended { "mended" } else { finding.mend };
    ///     println!("{}: {} ({done})", finding.code.code(), finding.meaning);
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Safe: what was mended by then stays so.
    pub async fn doctor_with(&self, checkup: Checkup) -> Findings {
        let first = self.look(checkup).await;
        if !checkup.fix || !first.any_to_fix() {
            return first;
        }
        let failed = self.mend(&first).await;
        self.look(checkup).await.after(first, failed)
    }

    async fn look(&self, checkup: Checkup) -> Findings {
        let mut found = Findings::default();
        if let Some(directory) = self.kept_in() {
            local::look(directory, checkup, &mut found);
        }
        let answers = server::look(self.homeserver(), Some(self.session()), checkup, &mut found).await;
        self.look_inside(answers, checkup, &mut found).await;
        found.sorted()
    }

    /// What needs an open store.
    async fn look_inside(&self, answers: server::Answers, checkup: Checkup, found: &mut Findings) {
        device::store(self, found).await;
        device::health(self, found).await;
        device::undecryptable(self, found).await;
        let checks = [Check::Device, Check::Keys, Check::Identity, Check::Backup, Check::Rooms];
        match answers {
            server::Answers::Fully => {
                device::keys(self, found).await;
                device::identity(self, found).await;
                if checkup.rooms {
                    rooms::look(self, found).await;
                } else {
                    found.skipped(Check::Rooms, "it was not asked for");
                }
            }
            server::Answers::WithoutLogin => found.all_skipped(&checks, "the homeserver does not accept the login"),
            server::Answers::Never => found.all_skipped(&checks, "the homeserver does not answer"),
        }
    }

    /// What could not be mended, and why.
    async fn mend(&self, found: &Findings) -> Vec<(FindingCode, String)> {
        let mut failed = Vec::new();
        for code in found.to_fix() {
            let mended = match code {
                FindingCode::ProfileReadable => match self.kept_in() {
                    Some(directory) => local::close_to_others(directory),
                    None => Ok(()),
                },
                FindingCode::BackupBehind => self.back_up().await.map(drop),
                FindingCode::UndecryptableEvents => self.retry_undecryptable().await.map(drop),
                _ => self.tend_keys().await,
            };
            if let Err(error) = mended {
                failed.push((code, error.to_string()));
            }
        }
        failed
    }

    /// Let the engine know what the homeserver has of our keys, and publish what is missing.
    async fn tend_keys(&self) -> Result<()> {
        self.sync().await?;
        self.publish_keys().await
    }

    /// Try every event again that waits for its key, as after keys came otherwise than through a sync. What can be
    /// decrypted is received afterwards. Returns how many could. What waits for its sender to be accepted is left alone: a
    /// sync gives it when that is so.
    ///
    /// ```no_run
    /// # async fn example(client: mx_e2ee::Client) -> mx_e2ee::Result<()> {
    /// if client.retry_undecryptable().await? > 0 {
    ///     let waiting = client.waiting_counts().await?;
    ///     println!("some can be read now, and {} still wait", waiting.waiting);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn retry_undecryptable(&self) -> Result<usize> {
        Ok(self.orchestrator().retry_for_keys().await?)
    }
}

impl ClientBuilder {
    /// Look at the login of the directory, also where its store cannot be opened, is used by another process, or the
    /// homeserver does not answer: what can be looked at is. As [`Client::doctor_with`].
    ///
    /// ```no_run
    /// # async fn example() -> mx_e2ee::Result<()> {
    /// use mx_e2ee::{Checkup, Client, FindingCode};
    ///
    /// let found = Client::builder().directory("/var/lib/mybot").doctor(Checkup::default()).await?;
    /// if found.has(FindingCode::StoreInUse) {
    ///     println!("the bot runs: what is in its store was not looked at");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Configuration`] without a directory. Whatever else is wrong is in the answer.
    pub async fn doctor(self, checkup: Checkup) -> Result<Findings> {
        self.without_broken_manifest().checked(checkup).await
    }

    async fn checked(self, checkup: Checkup) -> Result<Findings> {
        let directory = self.kept_in()?.to_owned();
        let first = self.look(&directory, checkup).await;
        if !checkup.fix {
            return Ok(first);
        }
        if self.manifest_unreadable.is_some() {
            return Ok(first.not_mended("the trust manifest cannot be read, and nothing is mended without it"));
        }
        let mut failed = Vec::new();
        if first.has(FindingCode::ProfileReadable)
            && let Err(error) = local::close_to_others(&directory)
        {
            failed.push((FindingCode::ProfileReadable, error.to_string()));
        }
        match self.clone().open().await {
            Ok(client) => {
                failed.extend(client.mend(&first).await);
                if let Err(error) = client.close().await {
                    failed.push((FindingCode::CheckFailed, error.to_string()));
                }
            }
            Err(error) => {
                let codes = first.to_fix().into_iter();
                let codes = codes.filter(|code| *code != FindingCode::ProfileReadable);
                failed.extend(codes.map(|code| (code, error.to_string())));
            }
        }
        Ok(self.look(&directory, checkup).await.after(first, failed))
    }

    async fn look(&self, directory: &Path, checkup: Checkup) -> Findings {
        let mut found = Findings::default();
        self.manifest_unreadable
            .iter()
            .cloned()
            .for_each(|finding| found.push(finding));
        local::look(directory, checkup, &mut found);
        let session = match session::find(directory) {
            Ok(Some((session, session::Kept::Ended))) => Err((
                FindingCode::NotLoggedIn,
                format!("the login of {} was ended", session.user_id),
            )),
            Ok(Some((session, kept))) if kept.is_moved() => {
                let why = kept.refuse_moved(directory, &session).err();
                Err((
                    FindingCode::DeviceMoved,
                    why.map(|why| why.to_string()).unwrap_or_default(),
                ))
            }
            Ok(Some((session, _))) => Ok(session),
            Ok(None) => Err((FindingCode::NotLoggedIn, directory.display().to_string())),
            Err(error) => {
                found.push(Finding::of(FindingCode::LoginUnreadable).because(&error));
                found.all_skipped(Check::BEYOND_THE_DISK, "the login cannot be read");
                return found.sorted();
            }
        };
        let session = match session {
            Ok(session) => session,
            Err((code, why)) => {
                found.push(Finding::of(code).detail(why));
                found.all_skipped(Check::BEYOND_THE_DISK, "there is no login");
                return found.sorted();
            }
        };
        found.looked(Check::Login);
        // The store first: an exchange with the homeserver may renew the tokens that are beside it.
        match self.clone().open().await {
            Ok(client) => {
                let answers = server::look(client.homeserver(), Some(&session), checkup, &mut found).await;
                client.look_inside(answers, checkup, &mut found).await;
                if let Err(error) = client.close().await {
                    found.push(Finding::of(FindingCode::CheckFailed).because(&error));
                }
            }
            Err(error) => {
                self.look_outside(directory, &session, checkup, &mut found).await;
                unopened(&error, &mut found);
            }
        }
        found.sorted()
    }

    /// What can be looked at without the store: the homeserver, and the login where its tokens can be opened.
    async fn look_outside(&self, directory: &Path, session: &crate::Session, checkup: Checkup, found: &mut Findings) {
        let held = self.held(directory).await;
        let (homeserver, login) = match held {
            Ok(Held {
                homeserver: Some(homeserver),
                ..
            }) => (Ok(homeserver), Some(session)),
            _ => (self.stranger_to(&session.homeserver), None),
        };
        match homeserver {
            Ok(homeserver) => {
                server::look(&homeserver, login, checkup, found).await;
            }
            Err(error) => found.push(Finding::of(FindingCode::ServerUnreachable).because(&error)),
        }
    }
}

/// The store did not open: what that means, and what was not looked at.
fn unopened(error: &Error, found: &mut Findings) {
    let (code, why) = match error.code() {
        "store_in_use" => (FindingCode::StoreInUse, "another process uses the store"),
        "device_deleted" => (FindingCode::DeviceDeleted, "the device was ended"),
        _ => (FindingCode::StoreUnopened, "the store does not open"),
    };
    found.push(Finding::of(code).because(error));
    found.all_skipped(Check::OF_THE_STORE, why);
}
