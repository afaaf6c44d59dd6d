//! The name of one request, the caller's or our own.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Where it comes from and where it is told.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ones are replaced: they would only fill logs.
const CHARS_MAX: usize = 128;

/// The name of one request; an extension of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// The caller's, if it is one name of 1 to 128 visible ASCII characters; else a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(HEADER).iter();
        let given = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        };
        let fits = |id: &&str| {
            (1..=CHARS_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        given.filter(fits).map_or_else(Self::new, |id| Self(id.to_owned()))
    }

    fn new() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    pub(super) fn value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a request id is visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Header values, and whether the first is taken.
    #[test]
    fn a_request_keeps_its_callers_id_if_it_is_one_short_visible_word() {
        let (long_128, long_129) = ("x".repeat(128), "x".repeat(129));
        let table: [(&[&str], bool); 9] = [
            (&[], false),
            (&["a"], true),
            (&["!~\"{}"], true),
            (&[&long_128], true),
            (&[&long_129], false),
            (&[""], false),
            (&["a b"], false),
            (&["ä"], false),
            (&["a", "b"], false),
        ];
        for (values, taken) in table {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let RequestId(id) = RequestId::of(&headers);
            if taken {
                assert_eq!(id, values[0]);
            } else {
                assert_eq!(id.parse::<Uuid>().unwrap().get_version_num(), 7, "{values:?}");
            }
        }
    }
}
