//! For build scripts of the tests: collects the Rust code of pages in Markdown, so that a test can include it. What the
//! pages show then compiles, or the tests do not.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Writes `OUT_DIR/rust_blocks.rs`: a module for each block of the pages that begins with "```rust".
///
/// # Panics
/// When a page cannot be read, or the file not written.
pub fn collect(pages: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut code = String::new();
    for page in pages {
        let path = root.join(page);
        println!("cargo:rerun-if-changed={}", path.display());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (number, block) in text.split("\n```rust").skip(1).enumerate() {
            let block = block.split_once('\n').map_or("", |(_, block)| block);
            let block = block.split("\n```").next().unwrap_or_default();
            let name: String = page.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
            let name = name.to_lowercase();
            write!(
                code,
                "#[allow(dead_code, unused, clippy::all, clippy::pedantic)]\nmod {name}_{number} {{\n{block}\n}}\n"
            )
            .expect("a string grows");
        }
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("rust_blocks.rs"), code).expect("the folder of a build script is writable");
}
