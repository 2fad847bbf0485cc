//! What works after a fork. Threads do not survive it: what has threads must not be used in the child.

use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use rayon::ThreadPool;

use crate::errors;

/// The process that imported the module. Its threads of rayon are not in its children.
static IMPORTED_IN: AtomicU32 = AtomicU32::new(0);

/// The thread pool of a forked child, never freed: a lock around it could be held by a thread that is not in the child.
static CHILD_POOL: AtomicPtr<(u32, ThreadPool)> = AtomicPtr::new(std::ptr::null_mut());

/// The interpreter that imported the module; its classes belong to one.
static INTERPRETER: AtomicI64 = AtomicI64::new(-1);

/// Notes the process and the interpreter that import the module.
///
/// # Errors
/// When another interpreter of this process imported it.
pub fn imported() -> PyResult<()> {
    // SAFETY: there is an interpreter, since it imports the module.
    let interpreter = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    let known = INTERPRETER.compare_exchange(-1, interpreter, Ordering::SeqCst, Ordering::SeqCst);
    if known.is_err_and(|other| other != interpreter) {
        return Err(PyImportError::new_err("mrm does not support subinterpreters: use one interpreter of the process"));
    }
    IMPORTED_IN.store(std::process::id(), Ordering::SeqCst);
    Ok(())
}

/// Something that works only in the process that made it.
#[derive(Clone, Copy)]
pub struct Process(u32);

impl Process {
    /// This process.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// Whether this is the process.
    pub fn is_this(self) -> bool {
        self.0 == std::process::id()
    }

    /// An error where this is not the process.
    pub fn check(self, py: Python<'_>, what: &str) -> PyResult<()> {
        if self.is_this() {
            return Ok(());
        }
        Err(errors::raise(
            py,
            "ForkError",
            format!(
                "this {what} was made before the process forked, and its threads are not in the child: make it in the \
                 child, or start processes with the method \"spawn\" or \"forkserver\" (a DataLoader needs no worker \
                 processes here: num_workers=0)"
            ),
        ))
    }
}

/// Does work without the interpreter's lock; in a forked child, parallel work gets threads of the child.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    Ok(match own_pool(py)? {
        None => py.detach(work),
        Some(pool) => py.detach(|| pool.install(work)),
    })
}

/// The thread pool for parallel work in a forked child; `None` elsewhere: rayon's own.
pub fn own_pool(py: Python<'_>) -> PyResult<Option<&'static ThreadPool>> {
    if IMPORTED_IN.load(Ordering::SeqCst) == std::process::id() {
        return Ok(None);
    }
    child_pool().map(Some).map_err(|error| errors::raise(py, "Error", format!("no threads: {error}")))
}

fn child_pool() -> Result<&'static ThreadPool, rayon::ThreadPoolBuildError> {
    // SAFETY: the pointer is null or that of a leaked box.
    if let Some((process, pool)) = unsafe { CHILD_POOL.load(Ordering::SeqCst).as_ref() }
        && *process == std::process::id()
    {
        return Ok(pool);
    }
    let pool = rayon::ThreadPoolBuilder::new().build()?;
    let made = Box::leak(Box::new((std::process::id(), pool)));
    CHILD_POOL.store(std::ptr::from_mut(made), Ordering::SeqCst);
    // SAFETY: the box was leaked.
    Ok(unsafe { &(*CHILD_POOL.load(Ordering::SeqCst)).1 })
}
