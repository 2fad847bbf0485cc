//! Parses the path or URL of a dataset.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::error::{Error, StoreFault};

/// Schemes of object stores, as `object_store` names them, and of web servers.
const SCHEMES: [&str; 11] = ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "https", "http", "memory"];

/// Where a dataset is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A prefix of an object store.
    Remote(RemoteUrl),
}

/// A URL of an object store, in its parts: `SCHEME://AUTHORITY/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteUrl {
    /// The whole URL without slashes at its end.
    pub url: String,
    pub scheme: String,
    /// Bucket, container or host.
    pub authority: String,
    /// Without slashes at its end; empty for a whole bucket.
    pub prefix: String,
}

impl Location {
    /// Parses a path or a URL; whatever contains `://` is a URL.
    ///
    /// # Errors
    /// When the scheme is unknown, the bucket is missing, or the URL contains a login.
    pub fn parse(location: &OsStr) -> Result<Self, Error> {
        let Some((url, (scheme, rest))) = location.to_str().and_then(|text| Some((text, text.split_once("://")?)))
        else {
            return Ok(Self::Folder(PathBuf::from(location)));
        };
        let refused = || StoreFault::Location.at(url);
        if scheme == "file" {
            let parsed = url::Url::parse(url).ok().and_then(|parsed| parsed.to_file_path().ok());
            return parsed.map(Self::Folder).ok_or_else(refused);
        }
        let rest = rest.trim_end_matches('/');
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // Azure writes CONTAINER@ACCOUNT. Elsewhere an `@` follows a login; credentials come from the settings instead.
        let is_login = authority.contains('@') && (authority.contains(':') || !is_azure(scheme));
        if !SCHEMES.contains(&scheme) || authority.is_empty() || is_login {
            return Err(refused());
        }
        Ok(Self::Remote(RemoteUrl {
            url: url.trim_end_matches('/').to_owned(),
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            prefix: prefix.to_owned(),
        }))
    }
}

/// Whether URLs of a scheme name containers of Azure.
pub(crate) fn is_azure(scheme: &str) -> bool {
    ["az", "azure", "adl", "abfs", "abfss"].contains(&scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_known_scheme_and_an_authority_without_a_login() {
        let parse = |text: &str| Location::parse(OsStr::new(text));
        assert_eq!(parse("data/mimic").unwrap(), Location::Folder("data/mimic".into()));
        assert_eq!(parse("file:///a%20set").unwrap(), Location::Folder("/a set".into()));
        let Ok(Location::Remote(remote)) = parse("s3://bucket/a/b//") else { panic!("a URL") };
        assert_eq!((remote.authority.as_str(), remote.prefix.as_str()), ("bucket", "a/b"));
        assert_eq!(remote.url, "s3://bucket/a/b");
        for known in ["gs://b", "az://c/p", "abfss://c@a.dfs.core.windows.net/p", "https://host/set", "memory://x"] {
            assert!(parse(known).is_ok(), "{known}");
        }
        for unknown in ["ftp://host/set", "s3://", "s3:///set", "s3://me:secret@b/p", "az://c:secret@a/p", "file://x/y"]
        {
            let message = parse(unknown).unwrap_err().to_string();
            assert!(message.contains("s3://BUCKET/PREFIX") && !message.contains("secret"), "{message}");
        }
    }
}
