//! Sends a large file to an object store in pieces.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::PutPayload;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;

use crate::error::{Error, Result};
use crate::store::limits::PIECE;
use crate::store::remote::{PIECES, Remote, never};

impl Remote {
    /// Copies a local file into the store; a large one in pieces.
    pub fn upload(&self, from: &Path, name: &str) -> Result<()> {
        let Some(multipart) = self.connection.multipart.clone() else { return self.check_writable(name) };
        let file = fs::File::open(from).map_err(Error::io(from))?;
        let length = file.metadata().map_err(Error::io(from))?.len();
        if length <= PIECE {
            return self.write(name, fs::read(from).map_err(Error::io(from))?.into());
        }
        let upload =
            Upload { remote: self.clone(), store: multipart, name: name.to_owned(), key: self.key(name)?, length };
        self.wait(name, upload.send(file))
    }
}

/// A large file that is sent in pieces.
struct Upload {
    remote: Remote,
    store: Arc<dyn MultipartStore>,
    name: String,
    key: Key,
    /// Size of the file in bytes.
    length: u64,
}

impl Upload {
    /// Sends all pieces; where one fails, those that were sent are removed.
    async fn send(self, file: File) -> object_store::Result<()> {
        let (store, key) = (&self.store, &self.key);
        let id = self.remote.retried(&self.name, || store.create_multipart(key)).await?;
        let sent = self.send_pieces(&id, &file).await;
        if sent.is_err() {
            let _ = store.abort_multipart(key, &id).await;
        }
        sent
    }

    async fn send_pieces(&self, id: &String, file: &File) -> object_store::Result<()> {
        let (store, key) = (&self.store, &self.key);
        let piece = move |number: u64| async move {
            let start = number * PIECE;
            let mut piece = vec![0; PIECE.min(self.length - start) as usize];
            // Blocks a thread of the runtime, which has nothing to do but to send this file.
            file.read_exact_at(&mut piece, start).map_err(never)?;
            let payload = PutPayload::from(piece);
            self.remote.retried(&self.name, || store.put_part(key, id, number as usize, payload.clone())).await
        };
        let pieces = 0..self.length.div_ceil(PIECE);
        let parts: Vec<_> = stream::iter(pieces).map(piece).buffered(PIECES).try_collect().await?;
        let tries = AtomicUsize::new(0);
        let complete = || {
            tries.fetch_add(1, Ordering::Relaxed);
            store.complete_multipart(key, id, parts.clone())
        };
        match self.remote.retried(&self.name, complete).await {
            // An earlier try completed the upload, and its answer was lost.
            Err(object_store::Error::NotFound { .. }) if tries.into_inner() > 1 => Ok(()),
            completed => completed.map(drop),
        }
    }
}
