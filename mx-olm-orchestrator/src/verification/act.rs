//! The steps of a verification that somebody takes here: one unit of work each, and what it wants said afterwards.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{Verification as EngineVerification, matrix_sdk_qrcode::QrVerificationData};
use ruma::events::key::verification::cancel::CancelCode;

use super::{
    VerificationError, VerificationId, VerificationQr, VerificationState,
    flow::{self, Flow},
    ledger::{Heard, Look, Looked, Scene},
    request::METHODS,
    state::Standing,
};
use crate::{Orchestrator, Result, machine::Ending, receive::inbox};

/// A step.
enum Act {
    Accept,
    StartSas,
    ShowQr,
    Scan(Vec<u8>),
    Confirm,
    ConfirmIf(BTreeSet<String>),
    Cancel(CancelCode, &'static str),
}

/// What came of a step: a code to show, where there is one, or why it was not taken.
type Acted = Result<Option<VerificationQr>, VerificationError>;

impl Orchestrator {
    /// Take part in a verification that the other side asked for.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, asked: mx_olm_orchestrator::VerificationRequested) -> Result<(), mx_olm_orchestrator::Error> {
    /// use mx_olm_orchestrator::VerificationState;
    ///
    /// device.accept_verification(&asked.id).await?;
    /// let mut all = device.verifications();
    /// // Syncs go on beside this, in another task.
    /// loop {
    ///     let state = all.borrow_and_update().get(&asked.id).map(|shown| shown.state.clone());
    ///     match state {
    ///         Some(VerificationState::Ready { sas: true, .. }) => device.start_sas(&asked.id).await?,
    ///         Some(VerificationState::Compare { decimals, .. }) => println!("does the other side show {decimals:?}?"),
    ///         Some(VerificationState::Ended(how)) => return Ok(println!("{how:?}")),
    ///         _ => {}
    ///     }
    ///     if all.changed().await.is_err() {
    ///         return Ok(());
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Verification`](crate::Error::Verification) when it is not under way or was accepted; of the store.
    ///
    /// # Cancel safety
    /// A future that is dropped early may have taken the step; what it wants said is said with the next sync.
    pub async fn accept_verification(&self, id: &VerificationId) -> Result<()> {
        self.act(id, Act::Accept).await.map(drop)
    }

    /// Start to compare emoji and decimals. Where both sides do so at once, one of the two is followed.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, id: mx_olm_orchestrator::VerificationId) -> Result<(), mx_olm_orchestrator::Error> {
    /// match device.start_sas(&id).await {
    ///     Err(error) if error.code() == "verification_not_now" => println!("wait until it is ready: {error}"),
    ///     started => started?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept_verification`](Self::accept_verification).
    ///
    /// # Cancel safety
    /// As [`accept_verification`](Self::accept_verification).
    pub async fn start_sas(&self, id: &VerificationId) -> Result<()> {
        self.act(id, Act::StartSas).await.map(drop)
    }

    /// A code for the other side to scan.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, id: mx_olm_orchestrator::VerificationId) -> Result<(), mx_olm_orchestrator::Error> {
    /// let code = device.show_verification_qr(&id).await?;
    /// println!("{} modules wide, of {} bytes; wait for `QrScanned` then", code.width(), code.bytes().len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept_verification`](Self::accept_verification); also when the other side cannot scan, or there is no
    /// cross-signing identity on one of the sides.
    ///
    /// # Cancel safety
    /// As [`accept_verification`](Self::accept_verification).
    pub async fn show_verification_qr(&self, id: &VerificationId) -> Result<VerificationQr> {
        let why = "no code can be shown: the other side does not scan, or a cross-signing identity is missing";
        let shown = self.act(id, Act::ShowQr).await?;
        Ok(shown.ok_or_else(|| VerificationError::NotNow { id: id.clone(), why })?)
    }

    /// Take what was scanned from the other side, as the bytes of its code. Our side is confirmed by that.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, id: mx_olm_orchestrator::VerificationId) -> Result<(), Box<dyn std::error::Error>> {
    /// // The bytes of the code itself, as a scanner writes them into a file; a picture of it is for `qr_from_picture` of mx-e2ee.
    /// device.scan_verification_qr(&id, &std::fs::read("scanned.bin")?).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept_verification`](Self::accept_verification); also when the code is of another verification, or shows
    /// other keys than the homeserver does.
    ///
    /// # Cancel safety
    /// As [`accept_verification`](Self::accept_verification).
    pub async fn scan_verification_qr(&self, id: &VerificationId, scanned: &[u8]) -> Result<()> {
        self.act(id, Act::Scan(scanned.to_vec())).await.map(drop)
    }

    /// Both sides show the same, or the other side has scanned our code: somebody looked, and says so.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, id: mx_olm_orchestrator::VerificationId, they_are_alike: bool) -> Result<(), mx_olm_orchestrator::Error> {
    /// // Somebody has looked at both sides, and answered.
    /// if they_are_alike {
    ///     device.confirm_verification(&id).await?;
    /// } else {
    ///     device.mismatch_verification(&id).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept_verification`](Self::accept_verification); also when there is nothing to confirm yet.
    ///
    /// # Cancel safety
    /// As [`accept_verification`](Self::accept_verification).
    pub async fn confirm_verification(&self, id: &VerificationId) -> Result<()> {
        self.act(id, Act::Confirm).await.map(drop)
    }

    /// Confirm it if all the keys that it would verify are among `expected`, as Ed25519 keys in unpadded base64 that were
    /// given by their owners; else cancel it. Nobody needs to compare anything then: the keys are what a comparison is
    /// about.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator, id: mx_olm_orchestrator::VerificationId) -> Result<(), mx_olm_orchestrator::Error> {
    /// // The master key of the other side, as its owner gave it by another way than the homeserver.
    /// let expected = ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned()].into();
    /// match device.confirm_verification_if(&id, &expected).await {
    ///     Err(error) if error.code() == "verification_unexpected_keys" => println!("it was cancelled: {error}"),
    ///     confirmed => confirmed?,
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`confirm_verification`](Self::confirm_verification); [`VerificationError::Unexpected`] when it was cancelled.
    ///
    /// # Cancel safety
    /// As [`accept_verification`](Self::accept_verification).
    pub async fn confirm_verification_if(&self, id: &VerificationId, expected: &BTreeSet<String>) -> Result<()> {
        self.act(id, Act::ConfirmIf(expected.clone())).await.map(drop)
    }

    /// The two sides do not show the same: somebody may be in between. It is cancelled.
    ///
    /// # Errors
    /// As [`accept_verification`](Self::accept_verification).
    ///
    /// # Cancel safety
    /// As [`accept_verification`](Self::accept_verification).
    pub async fn mismatch_verification(&self, id: &VerificationId) -> Result<()> {
        let cancel = Act::Cancel(CancelCode::MismatchedSas, "the two sides do not show the same");
        self.act(id, cancel).await.map(drop)
    }

    /// Cancel or decline it.
    ///
    /// ```no_run
    /// # async fn example(device: mx_olm_orchestrator::Orchestrator) -> Result<(), mx_olm_orchestrator::Error> {
    /// // Before the program ends: nobody is left to wait.
    /// let live: Vec<_> = device.verifications().borrow().values().filter(|one| !one.state.is_ended()).map(|one| one.id.clone()).collect();
    /// for id in live {
    ///     device.cancel_verification(&id).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`accept_verification`](Self::accept_verification).
    ///
    /// # Cancel safety
    /// As [`accept_verification`](Self::accept_verification).
    pub async fn cancel_verification(&self, id: &VerificationId) -> Result<()> {
        let cancel = Act::Cancel(CancelCode::User, "it was cancelled here");
        self.act(id, cancel).await.map(drop)
    }

    async fn act(&self, id: &VerificationId, act: Act) -> Result<Option<VerificationQr>> {
        let (this, id) = (self.clone(), id.clone());
        let (looked, acted) = self
            .machine()
            .unit(move |machine, unit| {
                Box::pin(async move {
                    let scene = Scene {
                        machine,
                        unit,
                        now_ms: this.now_ms(),
                        verifications: this.verification(),
                    };
                    let (looked, acted, events) = take(scene, &id, act).await?;
                    inbox::append(unit, &events).await?;
                    let rebuild = looked.rebuild;
                    Ok(if rebuild {
                        Ending::CommitAndRebuild((looked, acted))
                    } else {
                        Ending::Commit((looked, acted))
                    })
                })
            })
            .await?;
        self.verification().show(looked);
        self.post_verifications().await?;
        Ok(acted?)
    }
}

/// Take a step, and look at all of them. A step that is refused is no error of the unit: the engine would be built again,
/// and all verifications with it.
async fn take(scene: Scene<'_>, id: &VerificationId, act: Act) -> Result<(Looked, Acted, Vec<crate::Event>)> {
    let mut look = Look::new(scene);
    let flow = flow::find(scene.unit, id).await?.filter(|flow| flow.farewell.is_none());
    let acted = match flow {
        Some(flow) => step(&mut look, flow, act).await?,
        None => Err(VerificationError::Unknown { id: id.clone() }),
    };
    let first = std::mem::take(&mut look.looked);
    look.at_all(&Heard::default()).await?;
    let mut looked = look.looked;
    // A farewell that has just been said is not to be said again.
    let said = |mail: &super::mail::Mail| first.mail.iter().any(|first| first.is_same_farewell(mail));
    looked.mail.retain(|mail| !said(mail));
    looked.mail.splice(0..0, first.mail);
    looked.seen.splice(0..0, first.seen);
    Ok((looked, acted, look.events))
}

async fn step(look: &mut Look<'_>, mut flow: Flow, act: Act) -> Result<Acted> {
    let known = flow.known(look.scene.machine);
    let id = flow.id.clone();
    let not_now = |why| Ok(Err(VerificationError::NotNow { id: id.clone(), why }));
    match act {
        Act::Accept => {
            let ready = known
                .request
                .and_then(|request| request.accept_with_methods(METHODS.to_vec()));
            if ready.is_none() {
                return not_now("it was accepted, or we asked for it ourselves");
            }
            flow.accepted = true;
            flow.keep(look.scene.unit).await?;
            look.say(&flow, ready);
        }
        Act::StartSas => {
            let under_way = matches!(known.verification, Some(EngineVerification::SasV1(_)));
            let started = match known.request {
                Some(request) if !under_way => Box::pin(request.start_sas()).await?,
                _ => None,
            };
            let Some((_, start)) = started else {
                return not_now(
                    "it is not accepted yet, is under way, or the other side cannot compare emoji and decimals",
                );
            };
            look.say(&flow, Some(start));
        }
        Act::ShowQr => {
            let code = match known.request {
                Some(request) => Box::pin(request.generate_qr_code()).await?,
                None => None,
            };
            return Ok(Ok(code.and_then(|code| VerificationQr::of(&code))));
        }
        Act::Scan(bytes) => return scan(look, &flow, &bytes).await,
        Act::Confirm => {
            if !confirm(look, &flow).await? {
                return not_now("there is nothing to confirm: wait until the two sides can be compared");
            }
        }
        Act::ConfirmIf(expected) => {
            if !is_comparable(&flow, look) {
                return not_now("there is nothing to confirm: wait until the two sides can be compared");
            }
            if !flow.keys.as_ref().is_some_and(|keys| keys.are_expected(&expected)) {
                let reason = "the keys are not the ones that were expected";
                look.cancel(flow, CancelCode::KeyMismatch, reason, true).await?;
                return Ok(Err(VerificationError::Unexpected { id }));
            }
            confirm(look, &flow).await?;
        }
        Act::Cancel(code, reason) => look.cancel(flow, code, reason, true).await?,
    }
    Ok(Ok(None))
}

fn is_comparable(flow: &Flow, look: &Look<'_>) -> bool {
    matches!(
        flow.known(look.scene.machine).standing(),
        Standing::At(VerificationState::Compare { .. } | VerificationState::QrScanned)
    )
}

/// Confirm what can be compared. Returns whether there was something.
async fn confirm(look: &mut Look<'_>, flow: &Flow) -> Result<bool> {
    if !is_comparable(flow, look) {
        return Ok(false);
    }
    match flow.known(look.scene.machine).verification {
        Some(EngineVerification::SasV1(sas)) => {
            // What it signs is noted when the other side has confirmed, too.
            let (macs, _signatures) = Box::pin(sas.confirm()).await?;
            look.say(flow, macs);
        }
        Some(EngineVerification::QrV1(qr)) => {
            let done = qr.confirm_scanning();
            look.say(flow, done);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

async fn scan(look: &mut Look<'_>, flow: &Flow, bytes: &[u8]) -> Result<Acted> {
    let wrong = |why| {
        let id = flow.id.clone();
        Ok(Err(VerificationError::WrongQr { id, why }))
    };
    let Ok(data) = QrVerificationData::from_bytes(bytes) else {
        return wrong("it is not a code of a verification");
    };
    let Some(request) = flow.known(look.scene.machine).request else {
        return Ok(Err(VerificationError::Unknown { id: flow.id.clone() }));
    };
    let scanned = match Box::pin(request.scan_qr_code(data)).await {
        Ok(scanned) => scanned,
        Err(matrix_sdk_crypto::ScanError::Store(error)) => return Err(error.into()),
        Err(matrix_sdk_crypto::ScanError::FlowIdMismatch { .. }) => return wrong("it is of another verification"),
        Err(matrix_sdk_crypto::ScanError::KeyMismatch { .. }) => {
            return wrong("it shows other keys than the homeserver does: somebody may be in between");
        }
        Err(_) => return wrong("a cross-signing identity is missing, or the device has no keys"),
    };
    let Some(code) = scanned else {
        let (id, why) = (flow.id.clone(), "it is not accepted yet");
        return Ok(Err(VerificationError::NotNow { id, why }));
    };
    let reciprocated = code.reciprocate();
    look.say(flow, reciprocated);
    Ok(Ok(None))
}
