//! How paths are stored: plain or as hashes.

use dataset::store::files;
use sha2::{Digest, Sha256};

/// Extensions that a hashed path keeps. Any other ending may be part of a patient's name.
const EXTENSIONS: [&str; 10] = ["dcm", "dicom", "png", "jpg", "jpeg", "txt", "csv", "tsv", "parquet", "gz"];

/// Hexadecimal digits of a hash.
const DIGITS: usize = 24;

/// How the paths of a raw directory are written into a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathNames {
    /// Store hashes in place of paths.
    pub hashed: bool,
}

impl PathNames {
    /// The form in which a path is stored: the path itself, or its hash and extension.
    pub fn stored(self, path: &str) -> String {
        if !self.hashed {
            return path.to_owned();
        }
        let extension = path.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        match extension.filter(|extension| EXTENSIONS.contains(&extension.as_str())) {
            Some(extension) => format!("{}.{extension}", hash(path)),
            None => hash(path),
        }
    }
}

/// The hash of a path or of a part of one: SHA-256, cut to 24 hexadecimal digits.
pub fn hash(path: &str) -> String {
    let mut digits = files::hex(&Sha256::digest(path));
    digits.truncate(DIGITS);
    digits
}
