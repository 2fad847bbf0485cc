//! The binary `dataset`: inspects, verifies, splits, measures and exports datasets.

fn main() -> std::process::ExitCode {
    dataset::commands::arguments::main(std::env::args_os()).into()
}
