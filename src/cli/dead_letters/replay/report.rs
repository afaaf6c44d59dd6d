//! Prints what became of each letter, and why a replay ended before its time.

use std::io::{self, Write, stderr};

use anyhow::Context;
use sqlx::PgConnection;

use crate::cli::output::{self, Cells, Output, printable};
use crate::operate::replay::{End, Line, lines};

/// So much of a detail stands in a table.
const DETAIL_CHARACTERS_MAX: usize = 80;

/// Prints every result, a page at a time: a set may be large.
pub(super) async fn print(
    connection: &mut PgConnection,
    replay: i64,
    form: Output,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut after = i64::MIN;
    let mut pages = Pages::new(form);
    loop {
        let page = lines(connection, replay, after).await.context("read the results")?;
        let Some(last) = page.last() else { break };
        after = last.dead_letter;
        pages.print(out, &page)?;
    }
    pages.end(out)?;
    out.flush().context("write the results")
}

/// A list that is printed in pieces.
pub(super) struct Pages {
    form: Output,
    begun: bool,
}

impl Pages {
    pub(super) const fn new(form: Output) -> Self {
        Self { form, begun: false }
    }

    pub(super) fn print<Row: Cells + serde::Serialize>(
        &mut self,
        out: &mut dyn Write,
        page: &[Row],
    ) -> io::Result<()> {
        match self.form {
            Output::Table => output::table(out, page)?,
            Output::Ndjson => output::list(out, Output::Ndjson, page)?,
            Output::Json => {
                for row in page {
                    let before = if std::mem::replace(&mut self.begun, true) { "," } else { "[" };
                    writeln!(out, "{before}")?;
                    serde_json::to_writer(&mut *out, row)?;
                }
            }
        }
        self.begun = true;
        Ok(())
    }

    pub(super) fn end(self, out: &mut dyn Write) -> io::Result<()> {
        match (self.form, self.begun) {
            (Output::Json, true) => writeln!(out, "\n]"),
            (Output::Json, false) => writeln!(out, "[]"),
            (Output::Table | Output::Ndjson, _) => Ok(()),
        }
    }
}

/// Says why the replay ended.
pub(super) fn end(end: &End, hint: &str) -> io::Result<()> {
    match end {
        End::Done => Ok(()),
        End::Interrupted => writeln!(stderr(), "interrupted; {hint}"),
        End::NewReason(reason) => writeln!(
            stderr(),
            "a canary died of {reason}, which none of the others did; {hint} with the rest"
        ),
        End::NoProgress(left) => {
            for stuck in left {
                let text =
                    |text: &Option<String>| text.as_deref().map(printable).unwrap_or_default();
                let (entity, key) = (text(&stuck.entity), text(&stuck.key));
                writeln!(
                    stderr(),
                    "dead letter {} ({entity} {key}) has no result yet: {}",
                    stuck.dead_letter,
                    stuck.why()
                )?;
            }
            writeln!(stderr(), "what is requested stays requested; {hint}")
        }
    }
}

impl Cells for Line {
    const HEADINGS: &'static [&'static str] =
        &["ID", "ENTITY", "KEY", "WRITE ID", "STATE", "OUTCOME", "WHY", "VERSION", "DETAIL"];

    fn cells(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        vec![
            self.dead_letter.to_string(),
            text(&self.entity),
            text(&self.key),
            text(&self.write_id),
            self.state.clone(),
            text(&self.outcome),
            text(self.effect.as_ref().map_or(&self.reason, |_| &self.effect)),
            self.version.map_or_else(|| "-".into(), |version| version.to_string()),
            output::shortened(&text(&self.detail), DETAIL_CHARACTERS_MAX),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(dead_letter: i64) -> Line {
        Line {
            dead_letter,
            entity: Some("item".into()),
            key: Some("a".into()),
            write_id: None,
            state: "done".into(),
            outcome: Some("applied".into()),
            effect: Some("updated".into()),
            reason: None,
            detail: None,
            version: Some(2),
        }
    }

    #[test]
    fn pages_of_json_are_one_list() {
        for pages in [vec![], vec![vec![line(1)]], vec![vec![line(1), line(2)], vec![line(3)]]] {
            let mut out = Vec::new();
            let mut printing = Pages::new(Output::Json);
            for page in &pages {
                printing.print(&mut out, page).unwrap();
            }
            printing.end(&mut out).unwrap();
            let list: Vec<serde_json::Value> = serde_json::from_slice(&out).unwrap();
            assert_eq!(list.len(), pages.concat().len());
        }
    }

    #[test]
    fn a_result_says_what_it_did_or_why_not() {
        assert_eq!(line(1).cells()[5..8], ["applied", "updated", "2"]);
        let dead = Line { effect: None, reason: Some("key_invalid".into()), ..line(1) };
        assert_eq!(dead.cells()[6], "key_invalid");
    }
}
