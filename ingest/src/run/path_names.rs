//! How paths are stored: as they are, or as hashes.

use dataset::store::files;
use sha2::{Digest, Sha256};

/// Extensions that a hashed path keeps. Any other ending may be a part of a name.
const EXTENSIONS: [&str; 10] = ["dcm", "dicom", "png", "jpg", "jpeg", "txt", "csv", "tsv", "parquet", "gz"];

/// Hexadecimal digits of a hash.
const DIGITS: usize = 24;

/// How the paths of a raw directory are written into a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathNames {
    /// As hashes.
    pub hashed: bool,
}

impl PathNames {
    /// A path as it is stored: as it is, or its hash with its extension.
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

/// The hash of a path, or of a part of one.
pub fn hash(path: &str) -> String {
    let mut digits = files::hex(&Sha256::digest(path));
    digits.truncate(DIGITS);
    digits
}
