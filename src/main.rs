//! Parses arguments, runs the command, and turns the error chain into one line and an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use keylane::cli::{self, Cli};
use mimalloc::MiMalloc;

/// A write is many small texts that one thread makes and another one drops.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli::run(cli, &mut std::io::stdout().lock()).await {
        Ok(code) => code,
        Err(failure) => {
            // A reader that has seen enough is no failure.
            let closed = failure
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
            if closed {
                return ExitCode::SUCCESS;
            }
            drop(writeln!(std::io::stderr(), "keylane: {failure:#}"));
            ExitCode::FAILURE
        }
    }
}
