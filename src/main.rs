//! Parses arguments, runs the command, and turns the error chain into one line and an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use keylane::cli::output::Pipe;
use keylane::cli::{self, Cli};
use mimalloc::MiMalloc;

/// A write is many small texts that one thread makes and another one drops.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Pipe::new(std::io::stdout().lock());
    let ended = cli::run(cli, &mut out).await;
    match ended.and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => code,
        // A reader that has seen enough is no failure.
        Err(_) if out.reader_left() => ExitCode::SUCCESS,
        Err(failure) => {
            drop(writeln!(std::io::stderr(), "keylane: {failure:#}"));
            ExitCode::FAILURE
        }
    }
}
