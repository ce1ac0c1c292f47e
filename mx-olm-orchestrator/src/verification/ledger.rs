//! What the engine says of the verifications under way, held against their records: one look at the end of each unit of
//! work that may have changed something.

use std::collections::BTreeSet;

use matrix_sdk_crypto::{
    OlmMachine, UserIdentity, Verification as EngineVerification, types::requests::OutgoingVerificationRequest,
};
use mx_crypto_store::Unit;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId, events::key::verification::cancel::CancelCode};

use super::{
    VerificationEnded, VerificationId, VerificationKeys, VerificationOutcome, VerificationRequested, VerificationShown,
    VerificationState, Verifications,
    flow::{self, Farewell, Flow},
    glare,
    mail::Mail,
    signing,
    state::{Known, Standing},
    verifiers,
};
use crate::{Event, Result, devices, receive::Context};

/// A verification ends after this long (client-server API, section "Key verification framework"),
const LONGEST_MS: u64 = 10 * 60 * 1000;
/// and a request that nobody here accepts after this long.
const UNANSWERED_MS: u64 = 2 * 60 * 1000;

/// What a look is told.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) machine: &'a OlmMachine,
    pub(crate) unit: &'a Unit,
    pub(crate) now_ms: u64,
    pub(crate) verifications: &'a Verifications,
}

/// Of whom there may be news.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Who sent something about a verification.
    pub(crate) from: BTreeSet<OwnedUserId>,
    /// Verifications in a room that another device of ours has answered.
    pub(crate) elsewhere: BTreeSet<String>,
    /// Requests that met another one, which goes on. The engine has let go of these.
    pub(super) withdrawn: BTreeSet<VerificationId>,
}

impl<'a> Scene<'a> {
    pub(crate) fn of(machine: &'a OlmMachine, unit: &'a Unit, context: &'a Context) -> Self {
        Self {
            machine,
            unit,
            now_ms: context.now_ms,
            verifications: &context.verifications,
        }
    }
}

impl Heard {
    pub(crate) fn add(&mut self, more: Self) {
        self.from.extend(more.from);
        self.elsewhere.extend(more.elsewhere);
        self.withdrawn.extend(more.withdrawn);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.from.is_empty() && self.elsewhere.is_empty() && self.withdrawn.is_empty()
    }
}

/// What a look found. It is shown when its unit has committed.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(super) live: usize,
    pub(super) seen: Vec<VerificationShown>,
    pub(super) mail: Vec<Mail>,
    pub(super) to_sign: bool,
    /// The engine holds something that keeps others from beginning: build it again.
    pub(crate) rebuild: bool,
}

/// A look under way.
pub(super) struct Look<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) looked: Looked,
    pub(super) events: Vec<Event>,
}

/// Look at all of them. What the app is to be told is put behind `events`.
pub(crate) async fn look(scene: Scene<'_>, heard: &Heard, events: &mut Vec<Event>) -> Result<Looked> {
    let mut look = Look::new(scene);
    look.at_all(heard).await?;
    events.append(&mut look.events);
    Ok(look.looked)
}

impl<'a> Look<'a> {
    pub(super) fn new(scene: Scene<'a>) -> Self {
        Self {
            scene,
            looked: Looked::default(),
            events: Vec::new(),
        }
    }

    pub(super) async fn at_all(&mut self, heard: &Heard) -> Result<()> {
        let mut flows = flow::all(self.scene.unit).await?;
        for user in &heard.from {
            self.greet(user, &mut flows).await?;
        }
        let mut stuck = false;
        for flow in flows {
            if flow.farewell.is_some() {
                self.say_again(&flow);
                continue;
            }
            if heard.withdrawn.contains(&flow.id) {
                self.cancel(flow, CancelCode::Accepted, glare::REASON, true).await?;
                continue;
            }
            let elsewhere = heard.elsewhere.contains(&flow.id.flow_id) && !flow.by_us && !flow.accepted;
            stuck |= self.at(flow, elsewhere).await?;
        }
        // The engine keeps what another device has answered, and refuses the user everything else meanwhile.
        self.looked.rebuild = stuck && self.looked.live == 0;
        Ok(())
    }

    /// A farewell that an earlier process, or an earlier attempt, left.
    fn say_again(&mut self, flow: &Flow) {
        self.looked.live += 1;
        if !self.scene.verifications.outbound().holds(&flow.id) {
            self.looked.mail.extend(flow.goodbye());
        }
    }

    /// Write down what a user asks for.
    async fn greet(&mut self, user: &UserId, flows: &mut Vec<Flow>) -> Result<()> {
        let Scene {
            machine, unit, now_ms, ..
        } = self.scene;
        for request in machine.get_verification_requests(user) {
            let id = VerificationId {
                user_id: user.to_owned(),
                flow_id: request.flow_id().as_str().to_owned(),
            };
            let is_over = request.is_cancelled() || request.is_done() || request.is_passive();
            if is_over || request.we_started() || flows.iter().any(|flow| flow.id == id) {
                continue;
            }
            let device = request.other_device_id();
            if is_blocked(machine, user, device.as_deref()).await? || flows.len() >= flow::MOST {
                drop(request.cancel());
                continue;
            }
            let flow = Flow {
                id: id.clone(),
                room: request.room_id().map(ToOwned::to_owned),
                device: device.clone(),
                asked: Vec::new(),
                by_us: false,
                accepted: false,
                began_ms: now_ms,
                keys: None,
                compared: None,
                farewell: None,
            };
            flow.keep(unit).await?;
            self.events.push(Event::VerificationRequested(VerificationRequested {
                id,
                device_id: device,
                room_id: flow.room.clone(),
            }));
            flows.push(flow);
        }
        Ok(())
    }

    /// Look at one. Returns whether the engine keeps it for no use.
    async fn at(&mut self, mut flow: Flow, elsewhere: bool) -> Result<bool> {
        let before = flow.clone();
        let known = flow.known(self.scene.machine);
        if let Some(device) = known.device() {
            flow.device = Some(device);
        }
        let standing = if elsewhere {
            Standing::Elsewhere
        } else {
            known.standing()
        };
        let state = match standing {
            Standing::Cancelled(outcome) => {
                self.end(flow, outcome, None).await?;
                return Ok(false);
            }
            Standing::Elsewhere => {
                flow.drop_in_engine(self.scene.machine);
                let reason = "another device of ours has answered";
                let outcome = VerificationOutcome::cancelled(&CancelCode::Accepted, reason, false);
                self.end(flow, outcome, None).await?;
                return Ok(true);
            }
            Standing::Lost => {
                let waits = flow.by_us || flow.accepted;
                let reason = "it was interrupted by a restart or an error: begin again";
                self.cancel(flow, CancelCode::UnknownTransaction, reason, waits).await?;
                return Ok(false);
            }
            Standing::Done { devices, user } => {
                self.done(flow, devices, user).await?;
                return Ok(false);
            }
            Standing::Offered => VerificationState::Started,
            Standing::At(ref state) => state.clone(),
        };
        if let Some((code, reason, told)) = self.wrong(&mut flow, &known, &state).await? {
            self.cancel(flow, code, reason, told).await?;
            return Ok(false);
        }
        let compared = state.comparison();
        if flow.began_anew(&state, compared.as_ref()) {
            // The engine lets the other side begin again at any time; whoever looks, looks at what was there before.
            let reason = "it began anew after there was something to compare";
            self.cancel(flow, CancelCode::UnexpectedMessage, reason, true).await?;
            return Ok(false);
        }
        flow.compared = compared.or(flow.compared);
        if matches!(standing, Standing::Offered)
            && let Some(EngineVerification::SasV1(sas)) = &known.verification
        {
            let accepted = sas.accept();
            self.say(&flow, accepted);
        }
        if flow != before {
            flow.keep(self.scene.unit).await?;
        }
        self.looked.live += 1;
        self.looked.seen.push(flow.shown(state));
        Ok(false)
    }

    /// Why it must not go on: with which code, and whether the other side is told.
    async fn wrong(
        &self,
        flow: &mut Flow,
        known: &Known,
        state: &VerificationState,
    ) -> Result<Option<(CancelCode, &'static str, bool)>> {
        let age_ms = self.scene.now_ms.saturating_sub(flow.began_ms);
        if *state == VerificationState::Requested && !flow.by_us && age_ms >= UNANSWERED_MS {
            // Another device of ours may still accept it.
            return Ok(Some((CancelCode::Timeout, "nobody here accepted it in time", false)));
        }
        if age_ms >= LONGEST_MS {
            return Ok(Some((CancelCode::Timeout, "it took longer than ten minutes", true)));
        }
        let Some(device) = &flow.device else { return Ok(None) };
        if flow.by_us && !flow.asked.is_empty() && !flow.asked.contains(device) {
            let reason = "a device answered that was not asked";
            return Ok(Some((CancelCode::UnexpectedMessage, reason, true)));
        }
        if known.verification.is_none() {
            return Ok(None);
        }
        let keys = VerificationKeys::of(self.scene.machine, &flow.id.user_id, device).await?;
        match &flow.keys {
            Some(before) if before.differ(&keys) => Ok(Some((
                CancelCode::KeyMismatch,
                "the keys of the other side changed meanwhile",
                true,
            ))),
            Some(_) => Ok(None),
            None => {
                flow.keys = Some(keys);
                Ok(None)
            }
        }
    }

    /// Both sides confirmed.
    async fn done(&mut self, flow: Flow, devices: Vec<OwnedDeviceId>, user: bool) -> Result<()> {
        let Scene {
            machine, unit, now_ms, ..
        } = self.scene;
        let Some(device) = &flow.device else {
            let reason = "it is not known with which device";
            return self.cancel(flow, CancelCode::KeyMismatch, reason, true).await;
        };
        let now = VerificationKeys::of(machine, &flow.id.user_id, device).await?;
        let is_same = flow.keys.as_ref().is_some_and(|before| !before.differ(&now));
        let own = flow.id.user_id == machine.user_id();
        if !own && let Some(ours) = verified_key(machine).await? {
            verifiers::note(unit, &flow.id.user_id, ours, now_ms)?;
        }
        let mut signed = false;
        if user && is_same {
            signed = if own {
                now.master_is_trusted
            } else {
                machine.cross_signing_status().await.has_user_signing
            };
            if signed && !own {
                signing::note_user(unit, &flow.id.user_id, now.master.clone()).await?;
                self.looked.to_sign = true;
            }
        }
        if let Some(key) = now.device.as_ref().filter(|_| devices.contains(device) && is_same) {
            devices::was_verified(unit, &flow.id.user_id, device, key).await?;
            if own && machine.cross_signing_status().await.has_self_signing {
                signing::note_device(unit, &flow.id.user_id, device, key).await?;
                self.looked.to_sign = true;
            }
        }
        let devices = if is_same { devices } else { Vec::new() };
        self.end(flow, VerificationOutcome::Done { devices, user: signed }, None)
            .await
    }

    /// End it from our side.
    pub(super) async fn cancel(&mut self, flow: Flow, code: CancelCode, reason: &str, tell: bool) -> Result<()> {
        flow.drop_in_engine(self.scene.machine);
        let outcome = VerificationOutcome::cancelled(&code, reason, true);
        let farewell = tell.then(|| Farewell {
            code,
            reason: reason.to_owned(),
        });
        self.end(flow, outcome, farewell).await
    }

    async fn end(&mut self, mut flow: Flow, outcome: VerificationOutcome, farewell: Option<Farewell>) -> Result<()> {
        self.looked
            .seen
            .push(flow.shown(VerificationState::Ended(outcome.clone())));
        self.events.push(Event::VerificationEnded(VerificationEnded {
            id: flow.id.clone(),
            device_id: flow.device.clone(),
            room_id: flow.room.clone(),
            outcome,
        }));
        flow.farewell = farewell;
        match flow.goodbye() {
            Some(mail) => {
                self.looked.live += 1;
                self.looked.mail.push(mail);
                flow.keep(self.scene.unit).await
            }
            None => flow::forget(self.scene.unit, &flow.id).await,
        }
    }

    /// The engine wants this said.
    pub(super) fn say(&mut self, flow: &Flow, request: impl IntoIterator<Item = OutgoingVerificationRequest>) {
        let mail = request.into_iter().filter_map(|request| Mail::of(&flow.id, &request));
        self.looked.mail.extend(mail);
    }
}

/// Our master key, where this device vouches for it: then it is among what the other side compares.
async fn verified_key(machine: &OlmMachine) -> Result<Option<String>> {
    let identity = machine.get_identity(machine.user_id(), None).await?;
    let own = identity.and_then(UserIdentity::own).filter(|own| own.is_verified());
    Ok(own
        .and_then(|own| own.master_key().get_first_key())
        .map(|key| key.to_base64()))
}

/// Whom we have blocked has no keys to show us.
pub(super) async fn is_blocked(machine: &OlmMachine, user: &UserId, device: Option<&DeviceId>) -> Result<bool> {
    let Some(device) = device else { return Ok(false) };
    let held = machine.get_device(user, device, None).await?;
    Ok(held.is_some_and(|held| held.is_blacklisted()))
}
