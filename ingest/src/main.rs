//! `ingest`: raw radiographs and reports in, training-ready shards out.

fn main() -> std::process::ExitCode {
    ingest::cli::main(std::env::args_os()).into()
}
