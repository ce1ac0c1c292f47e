//! Where a verification stands, as an app is told.

use matrix_sdk_crypto::{
    CancelInfo, EmojiShortAuthString, QrVerificationState, SasState, Verification as EngineVerification,
    VerificationRequest, VerificationRequestState,
};
use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedUserId,
    events::key::verification::{VerificationMethod, cancel::CancelCode},
};
use serde::{Deserialize, Serialize};

use super::VerificationKeys;

/// Names one verification.
///
/// ```
/// use mx_olm_orchestrator::VerificationId;
///
/// // Kept by the app between an event and what a person does about it.
/// let id = VerificationId { user_id: ruma::owned_user_id!("@friend:example.org"), flow_id: "$asked".to_owned() };
/// assert_eq!(serde_json::to_value(&id)?, serde_json::json!({"user_id": "@friend:example.org", "flow_id": "$asked"}));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerificationId {
    /// With whom.
    pub user_id: OwnedUserId,
    /// Its transaction id; in a room, the id of the event that asked for it.
    pub flow_id: String,
}

impl std::fmt::Display for VerificationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {}", self.flow_id, self.user_id)
    }
}

/// A verification, under way or ended.
///
/// ```no_run
/// # fn example(device: mx_olm_orchestrator::Orchestrator) {
/// for shown in device.verifications().borrow().values() {
///     println!("{} on {:?}: {:?}", shown.id.user_id, shown.device_id, shown.state);
///     if let Some(keys) = &shown.keys {
///         println!("it is about the master key {:?} and the device key {:?}", keys.master, keys.device);
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerificationShown {
    /// Which one.
    #[serde(flatten)]
    pub id: VerificationId,
    /// The room, where it happens in one.
    pub room_id: Option<OwnedRoomId>,
    /// The other device, once it is known which one takes part.
    pub device_id: Option<OwnedDeviceId>,
    /// We asked for it.
    pub by_us: bool,
    /// When it began here, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// Where it stands.
    #[serde(flatten)]
    pub state: VerificationState,
    /// The keys that it is about, once they can be compared.
    pub keys: Option<VerificationKeys>,
}

/// One of the seven pictures.
///
/// ```
/// use mx_olm_orchestrator::SasEmoji;
///
/// // Show the name, too: fonts draw the pictures in different ways.
/// fn row(emoji: &[SasEmoji]) -> String {
///     emoji.iter().map(|one| format!("{} {}", one.symbol, one.name)).collect::<Vec<_>>().join(", ")
/// }
/// let dog = SasEmoji { number: 0, symbol: "🐶".to_owned(), name: "Dog".to_owned() };
/// assert_eq!(row(&[dog]), "🐶 Dog");
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SasEmoji {
    /// Its number in the specification's table, section "SAS method: emoji".
    pub number: u8,
    /// The picture.
    pub symbol: String,
    /// Its name in English.
    pub name: String,
}

/// Where a verification stands.
///
/// ```
/// use mx_olm_orchestrator::{VerificationOutcome, VerificationState};
///
/// fn line(state: &VerificationState) -> String {
///     match state {
///         VerificationState::Compare { emoji: Some(emoji), .. } => emoji.iter().map(|one| format!("{} ", one.symbol)).collect(),
///         VerificationState::Compare { decimals: [a, b, c], .. } => format!("{a} {b} {c}"),
///         VerificationState::Ended(VerificationOutcome::Done { user, .. }) => format!("done; the user is verified: {user}"),
///         VerificationState::Ended(VerificationOutcome::Cancelled { reason, .. }) => reason.clone(),
///         _ => "wait".to_owned(),
///     }
/// }
/// assert_eq!(line(&VerificationState::Compare { emoji: None, decimals: [1111, 2222, 3333] }), "1111 2222 3333");
/// ```
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerificationState {
    /// Somebody asked for it, and it is not accepted yet.
    Requested,
    /// Both sides take part: either may start to compare, or show or scan a code.
    Ready {
        /// Emoji and decimals can be compared.
        sas: bool,
        /// The other side can scan our code.
        they_scan: bool,
        /// The other side can show us a code.
        they_show: bool,
    },
    /// Keys are exchanged: nobody needs to do anything.
    Started,
    /// People, or programs in their place, compare: both sides must show the same.
    Compare {
        /// Seven pictures, where the other side can show them.
        emoji: Option<Vec<SasEmoji>>,
        /// Three numbers, which say the same.
        decimals: [u16; 3],
    },
    /// Our code waits to be scanned.
    ShowingQr,
    /// The other side says that it has scanned our code: confirm it if that is so.
    QrScanned,
    /// We have confirmed, or scanned; the other side is to do so too.
    Confirmed,
    /// It has ended.
    Ended(VerificationOutcome),
}

impl VerificationState {
    /// What people compare, as one word.
    pub(super) fn comparison(&self) -> Option<String> {
        match self {
            Self::Compare { decimals, .. } => Some(format!("{decimals:?}")),
            Self::QrScanned => Some("code".to_owned()),
            _ => None,
        }
    }

    /// Nothing happens any more.
    ///
    /// ```
    /// use mx_olm_orchestrator::{VerificationOutcome, VerificationState};
    ///
    /// let done = VerificationOutcome::Done { devices: Vec::new(), user: true };
    /// assert!(VerificationState::Ended(done).is_ended());
    /// assert!(!VerificationState::Confirmed.is_ended(), "the other side has to confirm, too");
    /// ```
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

/// How a verification ended.
///
/// ```
/// use mx_olm_orchestrator::VerificationOutcome;
///
/// fn is_to_be_looked_into(outcome: &VerificationOutcome) -> bool {
///     match outcome {
///         VerificationOutcome::Done { .. } => false,
///         // Somebody saw two different things; a timeout is only a timeout.
///         VerificationOutcome::Cancelled { code, .. } => matches!(code.as_str(), "m.mismatched_sas" | "m.key_mismatch"),
///         _ => true,
///     }
/// }
/// # assert!(!is_to_be_looked_into(&VerificationOutcome::Done { devices: Vec::new(), user: true }));
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerificationOutcome {
    /// Both sides confirmed.
    Done {
        /// The devices whose keys were verified.
        devices: Vec<OwnedDeviceId>,
        /// The user's cross-signing identity was verified, and is signed where it is another user's; for our own user:
        /// this device trusts the identity.
        user: bool,
    },
    /// Nothing was verified.
    Cancelled {
        /// The specification's code, such as `m.mismatched_sas`.
        code: String,
        /// Why, in words of this crate.
        reason: String,
        /// We cancelled it.
        by_us: bool,
    },
}

impl VerificationOutcome {
    pub(super) fn cancelled(code: &CancelCode, reason: &str, by_us: bool) -> Self {
        Self::Cancelled {
            code: code.as_str().chars().take(64).collect(),
            reason: reason.to_owned(),
            by_us,
        }
    }

    fn of(info: &CancelInfo) -> Self {
        Self::cancelled(info.cancel_code(), info.reason(), info.cancelled_by_us())
    }
}

/// What the engine knows of a verification.
pub(super) struct Known {
    pub(super) request: Option<VerificationRequest>,
    pub(super) verification: Option<EngineVerification>,
}

/// Where the engine says that it stands.
pub(super) enum Standing {
    At(VerificationState),
    /// We are to accept the way in which the other side started.
    Offered,
    /// Both sides confirmed; whether the user's identity was among what was confirmed.
    Done {
        devices: Vec<OwnedDeviceId>,
        user: bool,
    },
    Cancelled(VerificationOutcome),
    /// Another device of ours has answered.
    Elsewhere,
    /// The engine does not know it.
    Lost,
}

impl Known {
    pub(super) fn device(&self) -> Option<OwnedDeviceId> {
        let of_verification = || match self.verification.as_ref()? {
            EngineVerification::SasV1(sas) => Some(sas.other_device_id().to_owned()),
            EngineVerification::QrV1(qr) => Some(qr.other_device_id().to_owned()),
            _ => None,
        };
        let of_request = self.request.as_ref().and_then(VerificationRequest::other_device_id);
        of_request.or_else(of_verification)
    }

    pub(super) fn standing(&self) -> Standing {
        if self.request.as_ref().is_some_and(VerificationRequest::is_passive) {
            return Standing::Elsewhere;
        }
        // What is under way counts: the engine takes a request as done when the other side says so.
        match &self.verification {
            Some(EngineVerification::SasV1(sas)) => of_sas(&sas.state()),
            Some(EngineVerification::QrV1(qr)) => of_qr(&qr.state()),
            _ => self.request.as_ref().map_or(Standing::Lost, of_request),
        }
    }
}

fn of_request(request: &VerificationRequest) -> Standing {
    match request.state() {
        VerificationRequestState::Created { .. } | VerificationRequestState::Requested { .. } => {
            Standing::At(VerificationState::Requested)
        }
        VerificationRequestState::Ready {
            their_methods,
            our_methods,
            ..
        } => {
            let both = |ours: VerificationMethod, theirs: VerificationMethod| {
                our_methods.contains(&ours) && their_methods.contains(&theirs)
            };
            Standing::At(VerificationState::Ready {
                sas: both(VerificationMethod::SasV1, VerificationMethod::SasV1),
                they_scan: both(VerificationMethod::QrCodeShowV1, VerificationMethod::QrCodeScanV1),
                they_show: both(VerificationMethod::QrCodeScanV1, VerificationMethod::QrCodeShowV1),
            })
        }
        VerificationRequestState::Transitioned { verification, .. } => match verification {
            EngineVerification::SasV1(sas) => of_sas(&sas.state()),
            EngineVerification::QrV1(qr) => of_qr(&qr.state()),
            _ => Standing::At(VerificationState::Started),
        },
        // Between other devices of ours.
        VerificationRequestState::Done => Standing::Elsewhere,
        VerificationRequestState::Cancelled(info) => Standing::Cancelled(VerificationOutcome::of(&info)),
    }
}

fn of_sas(state: &SasState) -> Standing {
    match state {
        SasState::Started { .. } => Standing::Offered,
        SasState::Created { .. } | SasState::Accepted { .. } => Standing::At(VerificationState::Started),
        SasState::KeysExchanged { emojis, decimals } => Standing::At(VerificationState::Compare {
            emoji: emojis.as_ref().map(pictures),
            decimals: [decimals.0, decimals.1, decimals.2],
        }),
        SasState::Confirmed => Standing::At(VerificationState::Confirmed),
        SasState::Done {
            verified_devices,
            verified_identities,
        } => Standing::Done {
            devices: verified_devices
                .iter()
                .map(|device| device.device_id().to_owned())
                .collect(),
            user: !verified_identities.is_empty(),
        },
        SasState::Cancelled(info) => Standing::Cancelled(VerificationOutcome::of(info)),
    }
}

fn of_qr(state: &QrVerificationState) -> Standing {
    match state {
        QrVerificationState::Started => Standing::At(VerificationState::ShowingQr),
        QrVerificationState::Scanned => Standing::At(VerificationState::QrScanned),
        QrVerificationState::Confirmed | QrVerificationState::Reciprocated => {
            Standing::At(VerificationState::Confirmed)
        }
        QrVerificationState::Done {
            verified_devices,
            verified_identities,
        } => Standing::Done {
            devices: verified_devices
                .iter()
                .map(|device| device.device_id().to_owned())
                .collect(),
            user: !verified_identities.is_empty(),
        },
        QrVerificationState::Cancelled(info) => Standing::Cancelled(VerificationOutcome::of(info)),
    }
}

fn pictures(emoji: &EmojiShortAuthString) -> Vec<SasEmoji> {
    emoji
        .indices
        .iter()
        .zip(&emoji.emojis)
        .map(|(number, emoji)| SasEmoji {
            number: *number,
            symbol: emoji.symbol.to_owned(),
            name: emoji.description.to_owned(),
        })
        .collect()
}
