//! A connected store, and what messages say about its kind.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;

use crate::store::secrets::Secrets;

/// A store that requests go to.
#[derive(Clone)]
pub(crate) struct Connection {
    pub store: Arc<dyn ObjectStore>,
    /// The same store, for uploads in pieces; `None` where nothing can be written.
    pub multipart: Option<Arc<dyn MultipartStore>>,
    pub provider: &'static Provider,
    /// The server, as errors show it: without user and password.
    pub endpoint: String,
    /// What no message shows.
    pub secrets: Secrets,
}

/// What messages about a kind of store say.
pub(crate) struct Provider {
    /// How the names of its settings begin.
    pub settings: &'static str,
    /// Remedies where there is no access, no such bucket, no answer.
    pub credentials: &'static str,
    pub bucket: &'static str,
    pub network: &'static str,
}
