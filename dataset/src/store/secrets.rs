//! Keeps secrets out of messages.

use crate::error::without_passwords;

/// Values of settings that are shorter are words such as `true`, and no keys.
const LEAST_LENGTH: usize = 12;

/// What no message shows: the user and password of an endpoint, and the values of settings that are keys or tokens.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// As it is in the setting of the endpoint, up to the `@`.
    login: Option<String>,
    values: Vec<String>,
}

impl Secrets {
    /// Those of the settings of a store.
    pub fn of(settings: &[(String, String)]) -> Self {
        let is_secret = |name: &str| {
            let name = name.to_ascii_uppercase();
            let is_store = ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|start| name.starts_with(start));
            let is_place = ["_FILE", "_URI", "_ENDPOINT", "_URL"].iter().any(|end| name.ends_with(end));
            is_store && !is_place && ["KEY", "SECRET", "TOKEN", "PASSWORD"].iter().any(|word| name.contains(word))
        };
        let values = settings.iter().filter(|(name, value)| is_secret(name) && value.len() >= LEAST_LENGTH);
        Self { login: None, values: values.map(|(_, value)| value.clone()).collect() }
    }

    /// As [`Secrets::of`], with the login that an endpoint contains.
    pub fn with_endpoint(settings: &[(String, String)], endpoint: Option<&str>) -> Self {
        let authority = endpoint.map(|endpoint| endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest));
        let login = authority.and_then(|authority| Some(authority[..=authority.rfind('@')?].to_owned()));
        Self { login, ..Self::of(settings) }
    }

    /// A text without them, and without user and password in any URL.
    pub fn hidden(&self, text: &str) -> String {
        let shown = self.login.as_ref().map_or_else(|| text.to_owned(), |login| text.replace(login, "***@"));
        without_passwords(&self.values.iter().fold(shown, |shown, value| shown.replace(value, "***")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tokens_and_logins_are_hidden_and_paths_are_not() {
        let settings = [
            ("AWS_ACCESS_KEY_ID", "AKIA0123456789"),
            ("AWS_SECRET_ACCESS_KEY", "a/secret+of=letters"),
            ("AWS_SESSION_TOKEN", "a long token"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/run/secrets/token"),
            ("AWS_BUCKET_KEY_ENABLED", "true"),
            ("AZURE_STORAGE_SAS_TOKEN", "sv=2024&sig=abcdef"),
            ("HOME_KEY", "not of any store"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let secrets = Secrets::with_endpoint(&settings, Some("http://me:pass/word@host"));
        let shown = secrets.hidden(
            "Credential=AKIA0123456789/x a/secret+of=letters (a long token) /run/secrets/token true ?sv=2024&sig=abcdef not of \
             any store http://me:pass/word@host",
        );
        assert_eq!(shown, "Credential=***/x *** (***) /run/secrets/token true ?*** not of any store http://***@host");
    }
}
