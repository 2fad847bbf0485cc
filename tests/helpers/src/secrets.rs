//! Marked credentials, and the search for them.

use crate::text;

/// Environment variables with credentials; each value is marked.
pub const SECRETS: [(&str, &str); 9] = [
    ("AWS_ACCESS_KEY_ID", "AKIAMARKED0123456789"),
    ("AWS_SECRET_ACCESS_KEY", "MARKEDSECRET/with+letters=0123456789abcd"),
    ("AWS_SESSION_TOKEN", "MARKEDTOKEN0123456789"),
    ("AZURE_STORAGE_ACCOUNT_KEY", "MARKEDAZURE0123456789AAAA"),
    ("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=MARKEDSAS"),
    ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"private_key\": \"MARKEDGOOGLE\"}"),
    ("HF_TOKEN", "hf_MARKEDHUB0123456789"),
    ("WANDB_API_KEY", "MARKEDWANDB0123456789"),
    ("HTTPS_PROXY_PASSWORD", "MARKEDPROXY0123456789"),
];

/// What is in each of the values.
const MARK: &[u8] = b"MARKED";

/// Settings of a store with the marked credentials.
pub fn with_secrets(mut settings: Vec<(String, String)>) -> Vec<(String, String)> {
    settings.retain(|(name, _)| SECRETS.iter().all(|(secret, _)| secret != name));
    settings.extend(SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned())));
    settings
}

/// Fails where bytes contain the mark.
pub fn assert_without_secrets(bytes: &[u8], what: &str) {
    let found = bytes.windows(MARK.len()).position(|window| window == MARK);
    if let Some(at) = found {
        let around = &bytes[at.saturating_sub(100)..(at + 60).min(bytes.len())];
        panic!("{what} has a secret: {}", text(around));
    }
}
