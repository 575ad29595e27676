//! The command line, nothing else: see [`riderflow::cli`].

fn main() -> std::process::ExitCode {
    riderflow::cli::main()
}
