//! What an error of an object store means for its user.

use object_store::client::{HttpError, HttpErrorKind};

use crate::error::StoreFault;
use crate::store::connection::Connection;

/// The cause of a failed request, with its remedy, and without the password of the endpoint.
pub(crate) fn fault(error: &object_store::Error, connection: &Connection) -> StoreFault {
    let provider = connection.provider;
    let (all, innermost) = texts(error);
    let innermost = shortened(connection.secrets.hidden(&innermost));
    let credentials = |cause| StoreFault::Credentials { cause, remedy: provider.credentials };
    if METADATA_SERVERS.iter().any(|address| all.contains(address)) {
        // The environment has no credentials: the machine is asked last.
        return credentials("the environment has no credentials".to_owned());
    }
    match error {
        _ if NO_BUCKET.iter().any(|code| all.contains(code)) => StoreFault::NoBucket { remedy: provider.bucket },
        _ if ENDED_CREDENTIALS.iter().any(|code| all.contains(code)) => credentials(innermost),
        object_store::Error::NotFound { .. } => StoreFault::NoObject,
        object_store::Error::AlreadyExists { .. } => StoreFault::Exists,
        object_store::Error::NotImplemented { .. } => StoreFault::Unconditional,
        object_store::Error::Precondition { .. } => StoreFault::Replaced,
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            credentials(innermost)
        }
        _ if is_silent(error) => StoreFault::Unreachable {
            endpoint: connection.endpoint.clone(),
            cause: innermost,
            remedy: provider.network,
        },
        _ if status(&all) == Some(NOT_IMPLEMENTED) => StoreFault::Unsupported(innermost),
        _ => StoreFault::Other(innermost),
    }
}

/// Whether the same request may succeed later: there was no connection or no answer, the answer was cut off, or the store
/// said that it is overloaded or broken.
pub(crate) fn is_transient(error: &object_store::Error) -> bool {
    if !matches!(error, object_store::Error::Generic { .. }) {
        return false;
    }
    let text = texts(error).0;
    match status(&text) {
        Some(status) => (status >= 500 && status != NOT_IMPLEMENTED) || matches!(status, 408 | 429),
        None => !text.contains("Received redirect"),
    }
}

/// The HTTP status of a store that does not know the request.
const NOT_IMPLEMENTED: u16 = 501;

/// The HTTP status in the text of an error, where the library states it.
fn status(text: &str) -> Option<u16> {
    text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok())
}

/// Parts of the addresses at which machines in a cloud give credentials.
const METADATA_SERVERS: [&str; 4] =
    ["/latest/api/token", "/latest/meta-data/", "/computeMetadata/v1/", "/metadata/identity/"];

/// What S3 and Google, and Azure, answer where there is no such bucket.
const NO_BUCKET: [&str; 2] = ["<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>"];

/// What S3 answers, with status 400 or 403, where credentials were valid before.
const ENDED_CREDENTIALS: [&str; 3] =
    ["<Code>ExpiredToken</Code>", "<Code>InvalidToken</Code>", "<Code>TokenRefreshRequired</Code>"];

/// Characters of an answer that a message shows: a proxy may answer with a page.
const SHOWN: usize = 300;

fn shortened(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Whether there was no connection, or no answer in time.
fn is_silent(error: &object_store::Error) -> bool {
    use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
    let kind = chain(error).find_map(|error| Some(error.downcast_ref::<HttpError>()?.kind()));
    matches!(kind, Some(Connect | Interrupted | Request | Timeout))
}

/// The text of an error with all its causes; and its innermost cause, or the store's answer, in one line.
pub(crate) fn texts(error: &object_store::Error) -> (String, String) {
    let all: Vec<String> = chain(error).map(ToString::to_string).collect();
    let innermost = all.last().cloned().unwrap_or_default();
    let tag = |name: &str| {
        let (_, rest) = innermost.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.to_owned())
    };
    let answer = tag("Code").map(|code| format!("{code}: {}", tag("Message").unwrap_or_default()));
    let line = answer.unwrap_or(innermost).split_whitespace().collect::<Vec<_>>().join(" ");
    (all.join(": "), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_final_and_outages_are_not() {
        let transient =
            |text: &str| is_transient(&object_store::Error::Generic { store: "S3", source: text.to_owned().into() });
        assert!(transient("error sending request: connection refused"));
        assert!(transient("Server returned non-2xx status code: 503 Service Unavailable: "));
        assert!(transient("Server returned non-2xx status code: 429 Too Many Requests: "));
        assert!(!transient("Server returned non-2xx status code: 400 Bad Request: "));
        assert!(!transient("Server returned non-2xx status code: 501 Not Implemented: "));
        assert!(!transient("Received redirect without LOCATION"));
        let missing = object_store::Error::NotFound { path: "x".to_owned(), source: "x".into() };
        assert!(!is_transient(&missing));
    }
}
