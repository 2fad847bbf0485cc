//! `dataset`: look at a dataset, check it, split it, hand it on.

fn main() -> std::process::ExitCode {
    dataset::commands::arguments::main()
}
