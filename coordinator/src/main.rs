//! The coordinator and its command line.

fn main() -> std::process::ExitCode {
    cdc_coordinator::cli::main()
}
