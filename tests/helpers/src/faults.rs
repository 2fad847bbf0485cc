//! Faults of the file system, injected into a binary: calls of the C library fail for chosen paths.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Replaces `open64`, `opendir` and `statx` of the C library. `FAULT_PATHS` holds endings of paths, separated by colons.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int matches(const char *path) {
    const char *ending = getenv("FAULT_PATHS");
    while (path && ending && *ending) {
        size_t length = strcspn(ending, ":"), all = strlen(path);
        if (all >= length && !strncmp(path + all - length, ending, length)) return 1;
        ending += length + (ending[length] == ':');
    }
    return 0;
}

static int fails(const char *call, const char *path) {
    static int failed;
    const char *wanted = getenv("FAULT_CALL"), *times = getenv("FAULT_TIMES");
    if (!wanted || strcmp(wanted, call) || !matches(path)) return 0;
    if (times && __sync_fetch_and_add(&failed, 1) >= atoi(times)) return 0;
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    if (fails("open", path)) return -1;
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64"))(path, flags, mode);
}

DIR *opendir(const char *path) {
    if (fails("opendir", path)) return NULL;
    return ((DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir"))(path);
}

int statx(int folder, const char *path, int flags, unsigned int mask, struct statx *found) {
    if (fails("stat", path)) return -1;
    return ((int (*)(int, const char *, int, unsigned int, struct statx *))dlsym(RTLD_NEXT, "statx"))(
        folder, path, flags, mask, found);
}
"#;

/// The call that fails.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Open,
    OpenFolder,
    Stat,
}

/// Error numbers of Linux.
pub const EIO: i32 = 5;
pub const EACCES: i32 = 13;

/// Injects faults into commands.
pub struct Faults(PathBuf);

/// Compiles a library of C in a folder; `None`, with a line that says so, where there is no `cc`.
pub fn compiled(folder: &Path, name: &str, text: &str) -> Option<PathBuf> {
    let (source, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    std::fs::write(&source, text).expect("written");
    match Command::new("cc").args(["-O1", "-shared", "-fPIC", "-w", "-o"]).args([&library, &source]).status() {
        Ok(status) => {
            assert!(status.success(), "cc: {status}");
            Some(library)
        }
        Err(error) => {
            eprintln!("skipped: no cc ({error})");
            None
        }
    }
}

impl Faults {
    /// Compiles the library that is loaded before the C library ([`compiled`]).
    pub fn new(folder: &Path) -> Option<Self> {
        compiled(folder, "faults", SHIM).map(Self)
    }

    /// Makes a call fail for paths with one of these endings: always, or the first `times` times.
    pub fn inject(&self, command: &mut Command, call: Call, errno: i32, paths: &[&str], times: Option<usize>) {
        let call = match call {
            Call::Open => "open",
            Call::OpenFolder => "opendir",
            Call::Stat => "stat",
        };
        command.env("LD_PRELOAD", &self.0).env("FAULT_CALL", call).env("FAULT_ERRNO", errno.to_string());
        command.env("FAULT_PATHS", paths.join(":"));
        if let Some(times) = times {
            command.env("FAULT_TIMES", times.to_string());
        }
    }
}
