//! Build script of programs that call libtorch, so that they find it without `LD_LIBRARY_PATH`.
//!
//! torch-sys passes the folder of libtorch to its dependents; the script adds it to the binary's run path. If the CUDA
//! libraries are in that folder, too, it makes the linker keep them, since no symbol refers to them.

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
        println!("cargo:rustc-link-arg=-lc10_cuda");
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
}

/// A CPU-only installation of the `torch` wheel has `libtorch_cuda.so`, too, but not the NVIDIA libraries that it needs.
pub fn cuda_is_whole(lib: &Path) -> bool {
    let beside_wheel = lib.join("../../nvidia/cu13/lib");
    lib.join("libtorch_cuda.so").exists()
        && [lib, &beside_wheel].iter().any(|folder| folder.join("libcublas.so.13").exists())
}
