//! `trainer`: pre-trains, fine-tunes, evaluates.

fn main() -> std::process::ExitCode {
    trainer::cli::main()
}
