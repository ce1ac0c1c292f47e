//! How the device is: what an operator should know and do, in codes that stay the same.

use serde::Serialize;

use crate::{Orchestrator, Result};

/// How the device is.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::Health;
///
/// if let Health::Degraded { problems } = device.health().await? {
///     for problem in problems {
///         println!("{} [{}]", problem.advice, problem.code);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "health", rename_all = "snake_case")]
pub enum Health {
    /// Nothing is known to be wrong.
    Ok,
    /// Something needs an operator.
    Degraded {
        /// What, the most important first.
        problems: Vec<Problem>,
    },
}

/// Something that needs an operator.
///
/// ```no_run
/// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
/// use mx_olm_orchestrator::Health;
///
/// if let Health::Degraded { problems } = device.health().await? {
///     // The most important one first. By its code a monitor knows whether it is still the same.
///     if let Some(problem) = problems.first() {
///         println!("{} since {:?}: {}", problem.code, problem.since_ms, problem.advice);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// A stable name, for programs: where sends are refused for it, the code of that error.
    pub code: &'static str,
    /// What is wrong and what to do, in one sentence.
    pub advice: String,
    /// Since when, in milliseconds since the Unix epoch, where it is known.
    pub since_ms: Option<u64>,
}

impl Orchestrator {
    /// How the device is, from what earlier exchanges showed. Nothing is sent.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use mx_crypto_store::{KeySource, PickleStore, StoreKey, backend::Memory};
    /// # use mx_olm_orchestrator::{Options, Orchestrator};
    /// # let nowhere = Arc::new(mx_transport::Replay::from_transcript(r#"{"mx-transcript":1}"#)?);
    /// # let homeserver = mx_transport::Homeserver::new("http://localhost", nowhere)?;
    /// # let store = PickleStore::open(Arc::new(Memory::new()), KeySource::Bytes(StoreKey::from_bytes([7; 32]))).await?;
    /// # let (us, bot) = (ruma::user_id!("@bot:example.org"), ruma::device_id!("BOT"));
    /// # let device = Orchestrator::open(homeserver, store, us, bot, Options::default()).await?;
    /// use mx_olm_orchestrator::Health;
    ///
    /// assert_eq!(device.health().await?, Health::Ok, "nothing was exchanged yet that could show otherwise");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of the store.
    pub async fn health(&self) -> Result<Health> {
        let mut problems = Vec::new();
        if let Some(wrong) = self.own_device().await? {
            let error = wrong.error(self.device_id());
            problems.push(Problem {
                code: error.code(),
                advice: error.to_string(),
                since_ms: None,
            });
        }
        if let Some(conflict) = self.conflict().await?.filter(|conflict| !conflict.acknowledged) {
            let error = conflict.error();
            problems.push(Problem {
                code: error.code(),
                advice: error.to_string(),
                since_ms: Some(conflict.since_ms),
            });
        }
        if let Some(rollback) = self.rollback().await? {
            let error = rollback.error();
            problems.push(Problem {
                code: error.code(),
                advice: error.to_string(),
                since_ms: Some(rollback.since_ms),
            });
        }
        problems.extend(self.identity_problem().await?);
        problems.extend(self.backup_problem().await?);
        problems.extend(self.manifest_problems().await?);
        Ok(if problems.is_empty() {
            Health::Ok
        } else {
            Health::Degraded { problems }
        })
    }
}
