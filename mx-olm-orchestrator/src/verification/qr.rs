//! The code of a verification, as something to draw.

use matrix_sdk_crypto::{QrVerification, matrix_sdk_qrcode::qrcode::Color};

/// A code for the other side to scan. It holds a secret of this verification: show it to nobody else.
///
/// ```no_run
/// # use mx_olm_orchestrator::{Orchestrator, VerificationId};
/// # async fn example(device: Orchestrator, id: VerificationId) -> Result<(), mx_olm_orchestrator::Error> {
/// let code = device.show_verification_qr(&id).await?;
/// println!("P1 {0} {0}", code.width()); // a picture in the format PBM
/// for (x, y) in (0..code.width()).flat_map(|y| (0..code.width()).map(move |x| (x, y))) {
///     print!("{} ", u8::from(code.is_dark(x, y)));
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct VerificationQr {
    bytes: Vec<u8>,
    width: usize,
    dark: Vec<bool>,
}

/// The secret stays out of logs.
impl std::fmt::Debug for VerificationQr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerificationQr")
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

impl VerificationQr {
    pub(super) fn of(code: &QrVerification) -> Option<Self> {
        let bytes = code.to_bytes().ok()?;
        let drawn = code.to_qr_code().ok()?;
        Some(Self {
            bytes,
            width: drawn.width(),
            dark: drawn
                .to_colors()
                .into_iter()
                .map(|color| color == Color::Dark)
                .collect(),
        })
    }

    /// The bytes that are in the code.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many modules it is wide and high, without a margin.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Whether the module at this place is dark; what is outside is light.
    #[must_use]
    pub fn is_dark(&self, x: usize, y: usize) -> bool {
        x < self.width && self.dark.get(y * self.width + x) == Some(&true)
    }
}
