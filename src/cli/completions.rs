//! `keylane completions`: what a shell reads to complete commands and options.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::Cli;

/// What `completions` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script; where it belongs differs from shell to shell.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    // The generator panics if it cannot write, a vector always can.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "keylane", &mut script);
    out.write_all(&script).context("write the script")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            run(&Args { shell: *shell }, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }
}
