//! Arrays that other libraries use without a copy: by DLPack (versioned and legacy) and by NumPy's `__array_interface__`. The
//! buffer protocol is not in Python 3.10's stable ABI.

use std::ffi::{CStr, c_void};
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::errors;

/// What keeps the memory of an array. It is dropped from any thread, with or without the interpreter's lock.
pub type Owner = Arc<dyn Send + Sync>;

/// The CPU in DLPack's numbering of devices.
const CPU: (i32, i32) = (1, 0);

/// The newest version of DLPack whose structs are written here.
const DLPACK_VERSION: (u32, u32) = (1, 0);

/// DLPack's flag of memory that must not be written to.
const READ_ONLY: u64 = 1;

/// `DLTensor`.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: (i32, i32),
    ndim: i32,
    /// Code, bits, lanes.
    dtype: (u8, u8, u16),
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`, for consumers that do not know DLPack 1.0.
#[repr(C)]
struct Legacy {
    tensor: Tensor,
    context: *mut c_void,
    deleter: unsafe extern "C" fn(*mut Legacy),
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    version: (u32, u32),
    context: *mut c_void,
    deleter: unsafe extern "C" fn(*mut Versioned),
    flags: u64,
    tensor: Tensor,
}

/// What a managed tensor needs: its shape and strides, and the owner of its data.
struct Context {
    sides: Vec<i64>,
    _owner: Owner,
}

macro_rules! managed {
    ($kind:ident, $name:ident, $destroy:ident, $delete:ident) => {
        /// Called by the consumer, once, from any thread, with or without the interpreter's lock.
        unsafe extern "C" fn $delete(managed: *mut $kind) {
            // SAFETY: both were boxed by `Array::capsule`, and this is called once.
            unsafe {
                let managed = Box::from_raw(managed);
                drop(Box::from_raw(managed.context.cast::<Context>()));
            }
        }

        /// Frees the tensor of a capsule that nobody took; a consumer renames the one that it takes.
        unsafe extern "C" fn $destroy(capsule: *mut ffi::PyObject) {
            // SAFETY: Python calls this with the capsule that was made here; its name says whether it was taken.
            unsafe {
                if ffi::PyCapsule_IsValid(capsule, $name.as_ptr()) == 1 {
                    $delete(ffi::PyCapsule_GetPointer(capsule, $name.as_ptr()).cast());
                }
            }
        }
    };
}

const LEGACY: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";
managed!(Legacy, LEGACY, destroy_legacy, delete_legacy);
managed!(Versioned, VERSIONED, destroy_versioned, delete_versioned);

/// Types of elements, with their codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    name: &'static str,
    dlpack: (u8, u8, u16),
    numpy: &'static str,
}

/// A type of elements.
pub trait Element: Send + Sync + 'static {
    /// Its codes.
    const KIND: Kind;
}

macro_rules! elements {
    ($($type:ty, $name:literal, $code:literal, $bits:literal, $numpy:literal;)*) => {
        $(impl Element for $type {
            const KIND: Kind = Kind { name: $name, dlpack: ($code, $bits, 1), numpy: $numpy };
        })*

        /// An array of a copy of bytes in the order of this machine.
        fn of_bytes(dtype: &str, shape: &[usize], bytes: &[u8]) -> Option<Array> {
            let elements = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side))?;
            match dtype {
                $($name => {
                    let (chunks, rest) = bytes.as_chunks();
                    let values: Vec<$type> = chunks.iter().map(|chunk| <$type>::from_ne_bytes(*chunk)).collect();
                    (rest.is_empty() && values.len() == elements).then(|| Array::owned(values, shape))
                })*
                _ => None,
            }
        }
    };
}

impl Kind {
    /// Bytes of an element.
    fn bytes(self) -> usize {
        usize::from(self.dlpack.1) / 8
    }
}

elements! {
    f32, "float32", 2, 32, "<f4";
    i64, "int64", 0, 64, "<i8";
    i32, "int32", 0, 32, "<i4";
    u32, "uint32", 1, 32, "<u4";
    u16, "uint16", 1, 16, "<u2";
    u8, "uint8", 1, 8, "|u1";
}

/// An n-dimensional array, row-major, in memory of the host. NumPy and PyTorch use it without a copy:
/// ``np.asarray(array)``, ``np.from_dlpack(array)``, ``torch.from_dlpack(array)``. Its memory lives as long as anything uses
/// it; one small array of a batch keeps the memory of the whole batch.
#[pyclass(frozen, module = "mrm")]
pub struct Array {
    data: *mut c_void,
    kind: Kind,
    shape: Vec<usize>,
    is_read_only: bool,
    owner: Owner,
}

// SAFETY: the memory belongs to the owner, which is Send and Sync; this crate does not write to it while an array lives.
unsafe impl Send for Array {}
// SAFETY: as above.
unsafe impl Sync for Array {}

impl Array {
    /// An array of lent memory.
    ///
    /// # Safety
    /// `data` points to as many elements as the shape has, and they stay in place while the owner lives; nothing else writes
    /// to them.
    pub unsafe fn lent<T: Element>(data: *mut T, shape: &[usize], owner: Owner) -> Self {
        Self { data: data.cast(), kind: T::KIND, shape: shape.to_vec(), is_read_only: false, owner }
    }

    /// An array that owns its memory.
    pub fn owned<T: Element>(mut elements: Vec<T>, shape: &[usize]) -> Self {
        debug_assert_eq!(elements.len(), shape.iter().product::<usize>());
        let data = elements.as_mut_ptr().cast();
        Self { data, kind: T::KIND, shape: shape.to_vec(), is_read_only: false, owner: Arc::new(elements) }
    }

    /// The same array, not to be written to.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { is_read_only: true, ..self }
    }

    /// The elements, where they are of this type and can change no more.
    pub fn elements<T: Element>(&self) -> Option<&[T]> {
        let is_of_type = self.is_read_only && T::KIND == self.kind;
        // SAFETY: the memory has as many elements of this type, and nobody writes to it.
        is_of_type.then(|| unsafe { std::slice::from_raw_parts(self.data.cast::<T>(), self.shape.iter().product()) })
    }

    fn capsule<'py>(&self, py: Python<'py>, is_versioned: bool) -> PyResult<Bound<'py, PyAny>> {
        let dimensions = self.shape.len();
        let mut sides: Vec<i64> = self.shape.iter().map(|&side| side as i64).collect();
        sides.resize(2 * dimensions, 1);
        for axis in (1..dimensions).rev() {
            sides[dimensions + axis - 1] = sides[dimensions + axis] * sides[axis].max(1);
        }
        let mut context = Box::new(Context { sides, _owner: self.owner.clone() });
        let shape = context.sides.as_mut_ptr();
        let tensor = Tensor {
            data: self.data,
            device: CPU,
            ndim: dimensions as i32,
            dtype: self.kind.dlpack,
            shape,
            // SAFETY: as many strides follow the sides.
            strides: unsafe { shape.add(dimensions) },
            byte_offset: 0,
        };
        let context = Box::into_raw(context).cast();
        // SAFETY: the destructor of the capsule or its consumer frees both boxes, never both of them.
        unsafe {
            let (capsule, managed, delete): (_, _, unsafe fn(*mut c_void)) = if is_versioned {
                let flags = if self.is_read_only { READ_ONLY } else { 0 };
                let (version, deleter) = (DLPACK_VERSION, delete_versioned as unsafe extern "C" fn(*mut Versioned));
                let managed = Box::into_raw(Box::new(Versioned { version, context, deleter, flags, tensor })).cast();
                let capsule = ffi::PyCapsule_New(managed, VERSIONED.as_ptr(), Some(destroy_versioned));
                (capsule, managed, |managed| delete_versioned(managed.cast()))
            } else {
                let managed = Box::into_raw(Box::new(Legacy { tensor, context, deleter: delete_legacy })).cast();
                let capsule = ffi::PyCapsule_New(managed, LEGACY.as_ptr(), Some(destroy_legacy));
                (capsule, managed, |managed| delete_legacy(managed.cast()))
            };
            if capsule.is_null() {
                delete(managed);
            }
            Bound::from_owned_ptr_or_err(py, capsule)
        }
    }
}

/// The array of a pickle.
#[pyfunction]
pub fn array_of_bytes(
    py: Python<'_>,
    dtype: &str,
    shape: Vec<usize>,
    is_read_only: bool,
    bytes: &[u8],
) -> PyResult<Array> {
    let invalid = || errors::raise(py, "ArgumentError", "not the pickle of an mrm.Array");
    let array = of_bytes(dtype, &shape, bytes).ok_or_else(invalid)?;
    Ok(if is_read_only { array.read_only() } else { array })
}

/// Row numbers as an array that a loader takes: `uint32 [N]`, read-only.
#[pyfunction]
pub fn row_array(rows: Vec<u32>) -> Array {
    let shape = [rows.len()];
    Array::owned(rows, &shape).read_only()
}

#[pymethods]
impl Array {
    /// Length of each dimension.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape)
    }

    /// Type of the elements, by NumPy's name: ``float32``, ``int64``, ``int32``, ``uint32``, ``uint16`` or ``uint8``.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.kind.name
    }

    /// A NumPy array of the same memory.
    fn numpy<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("numpy")?.call_method1("asarray", (this,))
    }

    /// What NumPy reads in ``np.asarray(array)``; the NumPy array keeps this one alive.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", self.kind.numpy)?;
        interface.set_item("shape", self.shape(py)?)?;
        interface.set_item("data", (self.data as usize, self.is_read_only))?;
        Ok(interface)
    }

    /// The device of the memory, by DLPack's numbers: the CPU.
    #[expect(clippy::unused_self, reason = "Python calls it as a method")]
    fn __dlpack_device__(&self) -> (i32, i32) {
        CPU
    }

    /// A DLPack capsule of the same memory: versioned where the consumer's `max_version` is 1.0 or later.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if stream.is_some() || dl_device.is_some_and(|device| device != CPU) {
            return Err(PyBufferError::new_err("an mrm.Array is in memory of the host: copy the tensor to its device"));
        }
        if copy == Some(true) {
            return Err(PyBufferError::new_err("an mrm.Array is exported without a copy: copy the tensor"));
        }
        let is_versioned = max_version.is_some_and(|(major, _)| major >= DLPACK_VERSION.0);
        if self.is_read_only && !is_versioned {
            return Err(PyBufferError::new_err(
                "this mrm.Array must not be written to, which needs a consumer of DLPack 1.0: use np.asarray(array)",
            ));
        }
        self.capsule(py, is_versioned)
    }

    /// A copy, for pickle.
    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let (py, array) = (this.py(), this.get());
        let bytes = array.kind.bytes() * array.shape.iter().product::<usize>();
        // SAFETY: the memory has as many bytes. A consumer that writes at the same time gives a torn copy, as in NumPy.
        let bytes = unsafe { std::slice::from_raw_parts(array.data.cast::<u8>(), bytes) };
        let arguments = (array.kind.name, array.shape.clone(), array.is_read_only, PyBytes::new(py, bytes));
        (py.import("mrm._mrm")?.getattr("array_of_bytes")?, arguments).into_pyobject(py)
    }

    fn __len__(&self) -> PyResult<usize> {
        let scalar = || pyo3::exceptions::PyTypeError::new_err("an array without dimensions has no length");
        self.shape.first().copied().ok_or_else(scalar)
    }

    fn __repr__(&self) -> String {
        let sides: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        format!("mrm.Array([{}], {})", sides.join(", "), self.kind.name)
    }
}
