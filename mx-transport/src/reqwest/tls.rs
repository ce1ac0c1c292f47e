//! Whom we trust, and who we are: roots, pinned keys and a client's certificate.
//!
//! # Why nothing here verifies by itself
//! A certificate is verified by rustls against the platform's roots. A pin comes on top: what the verifier refuses stays
//! refused, and what it accepts is accepted only when the server's key is one of the pinned.

use std::{fmt, str::FromStr, sync::Arc};

use ruma::serde::{Base64, base64::Standard};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use rustls_platform_verifier::Verifier;
use sha2::{Digest, Sha256};

use crate::{TransportError, TransportErrorKind as Kind};

/// The key that a server's certificate must hold: the SHA-256 of its public key (SubjectPublicKeyInfo), which stays the
/// same when the certificate is renewed for the same key. In text it is `sha256/` and the hash in base64, as curl and
/// RFC 7469 have it.
///
/// ```
/// use mx_transport::Pin;
///
/// let pin: Pin = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse()?;
/// assert_eq!(pin.to_string(), "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
/// # Ok::<(), mx_transport::InvalidPin>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// This is not a pin.
///
/// ```
/// use mx_transport::{InvalidPin, Pin};
///
/// // A hash in hexadecimal is none.
/// assert_eq!("sha256/e3b0c44298fc".parse::<Pin>(), Err(InvalidPin));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is sha256/ and the SHA-256 of the server's public key in base64")]
pub struct InvalidPin;

impl Pin {
    /// The pin of a key by its hash.
    #[must_use]
    pub const fn new(sha256_of_public_key: [u8; 32]) -> Self {
        Self(sha256_of_public_key)
    }

    /// The pin of the key in a certificate (DER).
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use mx_transport::Pin;
    ///
    /// // The certificate that the server has today; it may be renewed for the same key.
    /// let pin = Pin::of_certificate(&std::fs::read("server.der")?)?;
    /// println!("{pin}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidPin`] when it is no certificate.
    pub fn of_certificate(der: &[u8]) -> Result<Self, InvalidPin> {
        Self::of(&CertificateDer::from(der)).map_err(|_| InvalidPin)
    }

    fn of(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        Ok(Self(Sha256::digest(key.as_ref()).into()))
    }
}

impl FromStr for Pin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let hash = text.trim().strip_prefix("sha256/").ok_or(InvalidPin)?;
        let hash = Base64::<Standard>::parse(hash).map_err(|_| InvalidPin)?;
        hash.as_bytes().try_into().map(Self).map_err(|_| InvalidPin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without padding everywhere else; pins are written with it.
        write!(f, "sha256/{}=", Base64::<Standard, _>::new(self.0.as_slice()).encode())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) roots: Vec<CertificateDer<'static>>,
    pub(super) only_these: bool,
    pub(super) pins: Vec<Pin>,
    pub(super) client: Option<Arc<Certified>>,
    pub(super) http1_only: bool,
}

/// A client's certificate with its key.
pub(super) struct Certified {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certified(…)")
    }
}

impl Certified {
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, TransportError> {
        let chain = certificates(pem)?;
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| wrong("a client's certificate comes with its private key, both in PEM"))?;
        Ok(Self { chain, key })
    }
}

/// The certificates in a PEM file.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(wrong("there is no certificate in PEM in it")),
    }
}

impl Tls {
    /// Whether it says something of one server that is no other one.
    pub(super) const fn is_for_one_server(&self) -> bool {
        self.only_these || !self.pins.is_empty() || self.client.is_some()
    }

    pub(super) fn config(&self) -> Result<ClientConfig, TransportError> {
        let provider = CryptoProvider::get_default()
            .cloned()
            .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let mut verifier = self.verifier(&provider)?;
        if !self.pins.is_empty() {
            verifier = Arc::new(Pinned {
                inner: verifier,
                pins: self.pins.clone(),
            });
        }
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.client {
            None => config.with_no_client_auth(),
            Some(client) => config
                .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
                .map_err(unusable)?,
        };
        config.alpn_protocols = if self.http1_only {
            vec![b"http/1.1".to_vec()]
        } else {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        };
        Ok(config)
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TransportError> {
        if self.only_these {
            let mut roots = RootCertStore::empty();
            for root in &self.roots {
                roots.add(root.clone()).map_err(unusable)?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
            return Ok(verifier.map_err(|error| TransportError::with_source(Kind::Build, error))?);
        }
        if self.roots.is_empty() {
            return Ok(Arc::new(Verifier::new(Arc::clone(provider)).map_err(unusable)?));
        }
        let verifier = Verifier::new_with_extra_roots(self.roots.iter().cloned(), Arc::clone(provider));
        Ok(Arc::new(verifier.map_err(unusable)?))
    }
}

fn unusable(error: TlsError) -> TransportError {
    TransportError::with_source(Kind::Build, error)
}

fn wrong(what: &'static str) -> TransportError {
    TransportError::with_source(Kind::Build, what)
}

/// Verifies as another, and then asks for one of these keys.
#[derive(Debug)]
struct Pinned {
    inner: Arc<dyn ServerCertVerifier>,
    pins: Vec<Pin>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        // The server's own key alone: of the other certificates that it sends nobody knows which were needed.
        if self.pins.contains(&Pin::of(end_entity)?) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pin_and_no_certificate_is_refused() {
        for bad in ["", "sha256/", "sha256/AAAA", "md5/47DEQpj8HBSa", "sha256/!!!!"] {
            assert_eq!(bad.parse::<Pin>(), Err(InvalidPin), "{bad}");
        }
        assert_eq!(Pin::of_certificate(b"no certificate"), Err(InvalidPin));
        assert!(certificates(b"nothing").is_err());
        assert!(Certified::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
