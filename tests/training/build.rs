//! Sets the run path of libtorch, and collects the Rust code of the trainer's page for `tests/trainer/command_line.rs`.

#[path = "../../trainer/rpath.rs"]
mod rpath;
#[path = "../helpers/rust_blocks.rs"]
mod rust_blocks;

fn main() {
    rpath::main();
    rust_blocks::collect(&["trainer/README.md", "notebooks/README.md"]);
}
