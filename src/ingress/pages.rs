//! The page of each code, for whoever follows the `type` of a problem.

use super::code::Code;

/// A section a code, each under a heading that is the code.
const PAGES: &str = include_str!("../../docs/PROBLEMS.md");
const HEADING: &str = "\n## ";

/// The section of a code, heading included; `None` for what is none.
pub(super) fn of(code: &str) -> Option<&'static str> {
    Code::all().find(|known| known.label() == code)?;
    sections().find(|(name, _)| *name == code).map(|(_, page)| page)
}

/// Codes and sections, in the order of the document.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGES.match_indices(HEADING).filter_map(|(start, heading)| {
        let page = PAGES.get(start + 1..)?;
        let page = page.get(..page.find(HEADING).map_or(page.len(), |end| end + 1))?;
        let name = page.lines().next()?.strip_prefix(heading.trim_start())?;
        Some((name.trim(), page))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_section_and_every_section_a_code() {
        let codes: BTreeSet<_> = Code::all().map(Code::label).collect();
        let named: Vec<_> = sections().map(|(name, _)| name).collect();
        assert_eq!(named.len(), codes.len(), "a section stands twice");
        assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), codes);
    }

    #[test]
    fn every_section_names_its_status_and_whether_to_send_again() {
        for code in Code::all() {
            let page = of(code.label()).unwrap();
            let first = page.lines().nth(2).unwrap();
            let status = code.status().as_u16();
            assert!(first.starts_with(&format!("**{status}**")), "{code:?}: {first}");
            assert!(page.contains("Same key again"), "{code:?}");
            assert_eq!(page.matches("## ").count(), 1, "{code:?} ends before the next");
        }
    }

    #[test]
    fn what_is_no_code_has_no_page() {
        for text in ["", "Problems", "nothing", "type_mismatch ", "applied"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
