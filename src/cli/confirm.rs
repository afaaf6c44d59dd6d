//! Asks before something large is done.

use std::io::{self, IsTerminal, Write};

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Yes,
    No,
    /// There is no terminal, so nobody can answer.
    Nobody,
}

/// Asks on the terminal; only `y` and `yes` are a yes.
pub fn ask(question: &str) -> io::Result<Answer> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(Answer::Nobody);
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(answer(&line))
}

fn answer(line: &str) -> Answer {
    let line = line.trim();
    let yes = line.eq_ignore_ascii_case("y") || line.eq_ignore_ascii_case("yes");
    if yes { Answer::Yes } else { Answer::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for line in ["y\n", "YES\r\n", " yes "] {
            assert_eq!(answer(line), Answer::Yes, "{line:?}");
        }
        for line in ["", "\n", "n\n", "yess\n", "1\n"] {
            assert_eq!(answer(line), Answer::No, "{line:?}");
        }
    }
}
