//! Collects the Rust code of the pages for `tests/documents.rs`.

#[path = "../helpers/rust_blocks.rs"]
mod rust_blocks;

fn main() {
    rust_blocks::collect(&["README.md", "dataset/README.md", "ingest/README.md", "docs/format.md", "docs/datasets.md"]);
}
