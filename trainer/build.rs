//! Compiles the C++ shim, and sets the path by which the trainer finds libtorch (`rpath.rs`).

mod rpath;

use std::path::Path;

fn main() {
    rpath::main();
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        compile_shim(Path::new(&lib));
    }
}

/// The headers are beside the libraries, unless `LIBTORCH_INCLUDE` is set (as for torch-sys).
fn compile_shim(lib: &Path) {
    println!("cargo:rerun-if-changed=src/torch/shim/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let root = std::env::var("LIBTORCH_INCLUDE").map_or_else(|_| lib.join(".."), Into::into);
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(1)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .file("src/torch/shim/shim.cpp")
        .compile("mrm_torch");
}
