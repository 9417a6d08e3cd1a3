//! The `sigilum` binary: parse, run, exit code.

fn main() -> std::process::ExitCode {
    sigilum::cli::run(std::env::args_os())
}
