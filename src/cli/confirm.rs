//! Asks before much is changed.

use std::io::{self, BufRead, IsTerminal, Write, stderr, stdin};

/// Whether somebody at a terminal says yes; `None` where nobody can be asked.
pub fn ask(question: &str) -> io::Result<Option<bool>> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Ok(None);
    }
    write!(stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim(), "y" | "Y" | "yes")))
}
