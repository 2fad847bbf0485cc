//! Build script of programs that call libtorch: they find it by themselves, without `LD_LIBRARY_PATH`.
//!
//! torch-sys tells its dependents where libtorch lies; that folder goes into the binary's run path. Where the CUDA
//! libraries lie beside it, the linker is kept from dropping them, since nothing refers to them by name.

use std::path::Path;

pub fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        println!("cargo:warning=libtorch's folder is unknown: run `make setup`, or set LIBTORCH to a libtorch 2.11");
        return;
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    if cuda_is_whole(Path::new(&lib)) {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
}

/// A CPU-only set-up of the `torch` wheel holds `libtorch_cuda.so` too, but not NVIDIA's libraries which it needs.
fn cuda_is_whole(lib: &Path) -> bool {
    let beside_wheel = lib.join("../../nvidia/cu13/lib");
    lib.join("libtorch_cuda.so").exists()
        && [lib, &beside_wheel].iter().any(|folder| folder.join("libcublas.so.13").exists())
}
