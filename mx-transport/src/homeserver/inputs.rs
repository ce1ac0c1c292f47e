//! What ruma wants to be handed for an endpoint's authentication and path: closed traits over ruma's kinds of both.

use std::borrow::Cow;

use ruma::api::{
    SupportedVersions,
    auth_scheme::{self, AuthScheme, SendAccessToken},
    path_builder::{PathBuilder, SinglePath, VersionHistory},
};

use crate::AccessToken;

mod sealed {
    pub trait Sealed {}
}

/// How requests with this authentication scheme are given our token. Not to be implemented elsewhere.
///
/// ```
/// use mx_transport::Authenticate;
/// use ruma::api::{Metadata, client::{account::whoami, session::get_login_types}};
///
/// // Whether a request of ruma can be made before there is a login: it is said by the type of its endpoint.
/// fn needs_a_login<R: Metadata>(_: &R) -> bool
/// where
///     R::Authentication: Authenticate,
/// {
///     <R::Authentication as Authenticate>::REQUIRED
/// }
/// assert!(needs_a_login(&whoami::v3::Request::new()));
/// assert!(!needs_a_login(&get_login_types::v3::Request::new()));
/// ```
pub trait Authenticate: AuthScheme + sealed::Sealed {
    /// The endpoint does not work without a token.
    const REQUIRED: bool;

    /// What the scheme wants.
    fn input(token: Option<&AccessToken>) -> Self::Input<'_>;
}

/// What kinds of paths want. Not to be implemented elsewhere.
pub trait PathInput: PathBuilder + sealed::Sealed {
    /// What the kind wants.
    fn input(versions: Cow<'_, SupportedVersions>) -> Self::Input<'_>;
}

macro_rules! with_token {
    ($scheme:ident, $required:expr) => {
        impl sealed::Sealed for auth_scheme::$scheme {}
        impl Authenticate for auth_scheme::$scheme {
            const REQUIRED: bool = $required;

            fn input(token: Option<&AccessToken>) -> SendAccessToken<'_> {
                token.map_or(SendAccessToken::None, |token| {
                    SendAccessToken::IfRequired(token.expose())
                })
            }
        }
    };
}

with_token!(AccessToken, true);
with_token!(AccessTokenOptional, false);
with_token!(AppserviceTokenOptional, false);
with_token!(NoAccessToken, false);

impl sealed::Sealed for auth_scheme::NoAuthentication {}

impl Authenticate for auth_scheme::NoAuthentication {
    const REQUIRED: bool = false;

    fn input(_: Option<&AccessToken>) {}
}

impl sealed::Sealed for VersionHistory {}

impl PathInput for VersionHistory {
    fn input(versions: Cow<'_, SupportedVersions>) -> Cow<'_, SupportedVersions> {
        versions
    }
}

impl sealed::Sealed for SinglePath {}

impl PathInput for SinglePath {
    fn input(_: Cow<'_, SupportedVersions>) {}
}
