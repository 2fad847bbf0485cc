//! The digest of a raw file that a record stores, and the hash functions for it.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Algorithm of the digests of raw files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SourceDigest {
    /// BLAKE3, the faster one.
    #[default]
    Blake3,
    /// SHA-256, as `sha256sum` prints it.
    Sha256,
}

impl SourceDigest {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
        }
    }

    /// The algorithm of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Blake3, Self::Sha256].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A digest of the bytes so far.
pub(crate) enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
}

impl Hasher {
    pub fn new(algorithm: SourceDigest) -> Self {
        match algorithm {
            SourceDigest::Blake3 => Self::Blake3(Box::default()),
            SourceDigest::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => drop(hasher.update(bytes)),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> [u8; 32] {
        match self {
            Self::Blake3(hasher) => hasher.finalize().into(),
            Self::Sha256(hasher) => hasher.finalize().into(),
        }
    }
}
