//! What the engine's errors are to a caller: none is flattened that says what to do next.

use mx_crypto_store::StoreError;

use super::Error;

impl Error {
    /// What the engine says, without what it may quote of an event.
    pub(crate) fn engine(error: &impl std::fmt::Display) -> Self {
        Self::Engine {
            reason: error.to_string(),
        }
    }
}

impl From<matrix_sdk_crypto::CryptoStoreError> for Error {
    fn from(error: matrix_sdk_crypto::CryptoStoreError) -> Self {
        use matrix_sdk_crypto::CryptoStoreError as Engine;
        match error {
            Engine::MismatchedAccount { expected, got } => Self::StoreOfAnotherDevice {
                expected: got,
                found: expected,
            },
            Engine::Backend(source) => match source.downcast::<StoreError>() {
                Ok(error) => Self::Store(*error),
                Err(source) => Self::Engine {
                    reason: source.to_string(),
                },
            },
            other => Self::Engine {
                reason: other.to_string(),
            },
        }
    }
}

impl From<matrix_sdk_crypto::OlmError> for Error {
    fn from(error: matrix_sdk_crypto::OlmError) -> Self {
        match error {
            matrix_sdk_crypto::OlmError::Store(error) => error.into(),
            matrix_sdk_crypto::OlmError::SessionRecipientCollectionError(
                matrix_sdk_crypto::SessionRecipientCollectionError::VerifiedUserChangedIdentity(users),
            ) => Self::IdentityChanged {
                users: users.into_iter().collect(),
            },
            other => Self::engine(&other),
        }
    }
}

impl From<matrix_sdk_crypto::MegolmError> for Error {
    fn from(error: matrix_sdk_crypto::MegolmError) -> Self {
        match error {
            matrix_sdk_crypto::MegolmError::Store(error) => error.into(),
            other => Self::engine(&other),
        }
    }
}
