//! Why core modules cannot be merged.

use wasm_encoder::reencode;

/// Why a component is left as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A part of the component cannot be parsed.
    #[error("{0}")]
    Parse(#[from] wasmparser::Error),
    /// The component has something that merging does not handle.
    #[error("{0}")]
    Unsupported(&'static str),
    /// An index points nowhere, which a valid component rules out.
    #[error("an index of {0} points nowhere")]
    Stray(&'static str),
    /// The encoder refuses an item.
    #[error("{0}")]
    Encode(String),
}

impl From<reencode::Error<Self>> for Problem {
    fn from(error: reencode::Error<Self>) -> Self {
        match error {
            reencode::Error::UserError(problem) => problem,
            reencode::Error::ParseError(error) => Self::Parse(error),
            reencode::Error::CanonicalizedHeapTypeReference
            | reencode::Error::InvalidConstExpr
            | reencode::Error::InvalidCodeSectionSize
            | reencode::Error::UnexpectedNonCoreModuleSection
            | reencode::Error::UnexpectedNonComponentSection
            | reencode::Error::UnsupportedCoreTypeInComponent => Self::Encode(error.to_string()),
        }
    }
}
