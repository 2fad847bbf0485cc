//! The error texts that the functions in C++ return.

use std::ffi::{CStr, c_char, c_void};

unsafe extern "C" {
    fn free(pointer: *mut c_void);
}

/// The first line of an error text, which is freed; none for a null pointer, which means that there was no error. What
/// follows the first line is a backtrace.
pub(super) fn take(error: *mut c_char) -> Option<String> {
    if error.is_null() {
        return None;
    }
    // SAFETY: `guarded.h` returns a null-terminated text from `strdup`, which the caller must free.
    unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().lines().next().unwrap_or_default().to_owned();
        free(error.cast());
        Some(text)
    }
}
