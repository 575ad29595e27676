//! The command line, nothing else: see [`riderflow::cli`].

/// Most memory is given by one thread and taken back by another, librdkafka's among them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    riderflow::cli::main()
}
