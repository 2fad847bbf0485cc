//! `trainer`: pre-training, fine-tuning, evaluation.

fn main() -> std::process::ExitCode {
    trainer::cli::main(std::env::args_os()).into()
}
