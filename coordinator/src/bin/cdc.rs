//! The same command tree as `cdc-coordinator`, by the name that a person types.

fn main() -> std::process::ExitCode {
    cdc_coordinator::cli::main()
}
