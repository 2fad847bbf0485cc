//! Memory for the bodies of answers, used again.
//!
//! The system clears new memory page by page, and the allocator gives large blocks back at once. For the pages of images, this
//! takes longer than copying them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Most bytes of free memory that are kept: two batches of 64 images of 512 × 512 pixels.
const MOST_BYTES: usize = 32 << 20;
/// Smaller bodies are left to the allocator, which keeps their memory itself.
const LEAST_BYTES: usize = 64 << 10;

/// Buffers that are free, the last one used last, and their bytes.
static FREE: Mutex<(Vec<Vec<u8>>, usize)> = Mutex::new((Vec::new(), 0));

fn free() -> MutexGuard<'static, (Vec<Vec<u8>>, usize)> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty buffer with room for a body of this length, at most for [`MOST_BYTES`]: a server may state any length.
pub(crate) fn take(length: usize) -> Vec<u8> {
    if length >= LEAST_BYTES {
        let mut free = free();
        // At most half of a buffer stays unused.
        let fits = |buffer: &Vec<u8>| (length..=length.saturating_mul(2)).contains(&buffer.capacity());
        if let Some(at) = free.0.iter().rposition(fits) {
            let buffer = free.0.remove(at);
            free.1 -= buffer.capacity();
            return buffer;
        }
    }
    Vec::with_capacity(length.min(MOST_BYTES))
}

/// A complete body, whose memory is free again when the last of its slices is dropped.
pub(crate) fn body(buffer: Vec<u8>) -> Bytes {
    if buffer.capacity() < LEAST_BYTES { buffer.into() } else { Bytes::from_owner(Body(buffer)) }
}

struct Body(Vec<u8>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        let mut free = free();
        if free.1 + buffer.capacity() <= MOST_BYTES {
            free.1 += buffer.capacity();
            free.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_dropped_bodies_is_used_again_and_bounded() {
        // A length that no other test of this process asks for.
        let length = (1 << 20) + 77;
        let mut buffer = take(length);
        buffer.resize(length, 7);
        let address = buffer.as_ptr();
        let whole = body(buffer);
        let slice = whole.slice(5..9);
        drop(whole);
        let other = take(length);
        assert_ne!(other.as_ptr(), address, "a slice is in use");
        drop(other);
        assert_eq!(slice, [7; 4].as_slice());
        drop(slice);
        let again = take(length);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        // Neither a much larger buffer is used, nor more than the limit is kept.
        drop(body(again));
        assert!(take(length / 2 - 100).capacity() < length);
        let many: Vec<Bytes> = (0..40).map(|_| body(Vec::with_capacity(length))).collect();
        drop(many);
        let (buffers, bytes) = &*free();
        assert!(*bytes <= MOST_BYTES && buffers.iter().map(Vec::capacity).sum::<usize>() == *bytes);
    }
}
