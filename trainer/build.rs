//! Compiles the C++ shim and the bindings of c10d, and sets the path by which the trainer finds libtorch (`rpath.rs`).

mod rpath;

use std::path::{Path, PathBuf};

/// The headers that NCCL's part of c10d and CUDA graphs need beyond torch's.
const CUDA_HEADERS: [&str; 5] = ["nccl.h", "cuda_runtime.h", "cublas_v2.h", "crt/host_config.h", "nv/target"];

fn main() {
    rpath::main();
    println!("cargo:rustc-check-cfg=cfg(cuda)");
    println!("cargo:rerun-if-changed=src/torch");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let lib = Path::new(&lib);
        let mut sources =
            vec!["src/torch/shim/shim.cpp", "src/torch/shim/in_place_loss.cpp", "src/torch/c10d/c10d.cpp"];
        let cuda = if rpath::cuda_is_whole(lib) { cuda_headers(lib) } else { None };
        if cuda.is_some() {
            sources.extend(["src/torch/c10d/nccl.cpp", "src/torch/shim/cuda_graph.cpp"]);
            println!("cargo:rustc-cfg=cuda");
        }
        compile(lib, &sources, &cuda.unwrap_or_default());
    }
}

/// The folders of headers beside a `torch` wheel with CUDA, if all that are needed are there.
fn cuda_headers(lib: &Path) -> Option<Vec<PathBuf>> {
    let packages = lib.join("../..");
    let folders = ["nvidia/cu13/include", "nvidia/nccl/include"].map(|folder| packages.join(folder));
    let missing: Vec<&str> =
        CUDA_HEADERS.into_iter().filter(|header| !folders.iter().any(|folder| folder.join(header).exists())).collect();
    if missing.is_empty() {
        return Some(folders.to_vec());
    }
    println!(
        "cargo:warning=built without NCCL and CUDA graphs: no {} (`make cuda-check` installs the packages)",
        missing.join(", ")
    );
    None
}

/// The headers are beside the libraries, unless `LIBTORCH_INCLUDE` is set (as for torch-sys).
fn compile(lib: &Path, sources: &[&str], cuda: &[PathBuf]) {
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
        .include("src/torch/c10d/gloo_headers")
        .includes(cuda)
        .files(sources)
        .compile("mrm_torch");
}
