//! From an error of reqwest to what the caller may do about it.
//!
//! # Why by looking at causes
//! reqwest says in which of its own steps an error came up. What matters here is whether anything was sent, and whether an
//! answer had begun: that is told by the errors of hyper, rustls and the operating system inside.

use std::{error::Error as StdError, io};

use rustls::AlertDescription;

use crate::{Phase, TransportError, TransportErrorKind as Kind};

/// It failed before the head of an answer was complete.
pub(super) fn before_the_answer(error: ::reqwest::Error) -> TransportError {
    let kind = if error.is_builder() {
        Kind::Build
    } else if error.is_connect() {
        if error.is_timeout() {
            Kind::Timeout(Phase::Connect)
        } else if is_tls(&error) && !alerts(&error).any(|alert| !is_about_who_we_are(alert)) {
            Kind::Tls
        } else {
            // A server that breaks within its handshake may do better the next time.
            Kind::Connect
        }
    } else if alerts(&error).any(is_about_who_we_are) {
        // TLS 1.3 tells what it thinks of a client's certificate after the client's first bytes. Any other alert may come
        // at any time, and after the request was processed.
        Kind::Tls
    } else if is_no_http(&error) {
        Kind::Malformed
    } else {
        Kind::Interrupted
    };
    told(kind, error)
}

/// It failed within the body.
pub(super) fn within_the_answer(error: ::reqwest::Error) -> TransportError {
    let kind = if is_no_http(&error) || is_garbled(&error) {
        Kind::Malformed
    } else {
        Kind::Truncated
    };
    told(kind, error)
}

/// Of an error's URL, which may hold a query, the host is kept.
fn told(kind: Kind, error: ::reqwest::Error) -> TransportError {
    let host = error.url().and_then(host_of);
    TransportError::with_source(kind, error.without_url()).with_host(host.as_deref())
}

/// The host of an address, with its port where it has one of its own.
pub(super) fn host_of(address: &::reqwest::Url) -> Option<String> {
    let host = address.host()?;
    Some(
        address
            .port()
            .map_or_else(|| host.to_string(), |port| format!("{host}:{port}")),
    )
}

/// Every cause of an error; those that an I/O error wraps are causes too.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inside = error
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref())
            .map(|inside| inside as &(dyn StdError + 'static));
        inside.or_else(|| error.source())
    })
}

fn is_tls(error: &::reqwest::Error) -> bool {
    causes(error).any(|cause| cause.is::<rustls::Error>())
}

/// What the other side says in TLS before it ends the connection.
fn alerts(error: &::reqwest::Error) -> impl Iterator<Item = AlertDescription> {
    causes(error).filter_map(|cause| match cause.downcast_ref() {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    })
}

/// Alerts about certificates and about how to speak (RFC 8446, section 6.2): the request was not read then.
const fn is_about_who_we_are(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::HandshakeFailure
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity
            | AlertDescription::MissingExtension
            | AlertDescription::UnsupportedExtension
            | AlertDescription::UnrecognisedName
            | AlertDescription::CertificateRequired
            | AlertDescription::NoApplicationProtocol
    )
}

/// What came is not HTTP, or more of a head than is read.
fn is_no_http(error: &::reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
        .any(|error| error.is_parse())
}

/// Chunks without a length, compressed data that is none.
fn is_garbled(error: &::reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
        && !is_tls(error)
}
