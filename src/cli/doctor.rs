//! `keylane doctor`: what is wrong around keylane, and what would mend it.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;

use super::output::{self, Output};
use crate::operate::doctor::{self, Check, Status};
use crate::settings::Settings;

/// What `doctor` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Makes every check; the exit code is 1 if any of them is a failure.
pub async fn run(
    settings: &Settings,
    args: &Args,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let checks = doctor::examine(settings).await;
    print(out, args.output, &checks).context("write the checks")?;
    let failed = checks.iter().any(|check| check.status == Status::Failure);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// No columns for the texts: a remedy is often a command to copy, and must not be broken.
fn print(out: &mut dyn Write, output: Output, checks: &[Check]) -> io::Result<()> {
    match output {
        Output::Json => return output::json(out, &checks),
        Output::Ndjson => {
            return checks.iter().try_for_each(|check| output::json_line(out, check));
        }
        Output::Table => {}
    }
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    for Check { name, status, found, remedy } in checks {
        writeln!(out, "{:8} {name:width$}  {}", status.label(), output::printable(found))?;
        if let Some(remedy) = remedy {
            writeln!(out, "{:8} {:width$}  to do: {}", "", "", output::printable(remedy))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_its_remedy_below_it() {
        let checks = [
            Check { name: "a.b", status: Status::Ok, found: "fine".into(), remedy: None },
            Check {
                name: "longer",
                status: Status::Failure,
                found: "bad".into(),
                remedy: Some("do this".into()),
            },
        ];
        let mut out = Vec::new();
        print(&mut out, Output::Table, &checks).unwrap();
        let expected = "ok       a.b     fine\n\
                        failure  longer  bad\n                 to do: do this\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
