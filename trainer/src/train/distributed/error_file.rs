//! The file in which a process reports to torchrun why it failed, so that torchrun's summary names the first failure.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

/// Writes the message to the file that torchrun has named; does nothing under another launcher.
pub fn write(message: &str) {
    let Some(file) = std::env::var_os("TORCHELASTIC_ERROR_FILE") else { return };
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let content = json!({ "message": { "message": message, "extraInfo": { "timestamp": seconds.to_string() } } });
    let _ = std::fs::write(file, content.to_string());
}
