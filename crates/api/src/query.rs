//! The query of an address: names and values, none of them unknown or given twice.

use crate::{cloud_event::percent_decoded, problem::Problem};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads a query that may use these names.
    ///
    /// # Errors
    /// A problem that names what is unknown or wrong.
    pub fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut found = Self::default();
        for pair in query.unwrap_or("").split('&').filter(|it| !it.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(known) = known.iter().copied().find(|it| *it == name) else {
                let cure = format!("not known; there are {}", known.join(", "));
                return Err(Problem::malformed(&format!("?{name}"), cure));
            };
            let value = percent_decoded(&value.replace('+', " "));
            let problem = |cure| Problem::malformed(&format!("?{known}"), cure);
            let value = value.ok_or_else(|| problem("a text that is UTF-8"))?;
            if found.get(known).is_some() {
                return Err(problem("given twice"));
            }
            found.0.push((known, value));
        }
        Ok(found)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|it| it.0 == name).map(|it| it.1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_values_in_percent_encoding() {
        let query = Query::parse(Some("queue=a%2Fb&vhost=x+y&"), &["queue", "vhost", "state"]);
        let query = query.expect("good");
        assert_eq!((query.get("queue"), query.get("vhost")), (Some("a/b"), Some("x y")));
        assert_eq!(query.get("state"), None);
        assert_eq!(Query::parse(None, &[]), Ok(Query::default()));
    }

    #[test]
    fn unknown_and_repeated_names_are_refused() {
        for (query, detail) in [
            ("vhots=a", "?vhots: not known; there are queue, vhost"),
            ("queue=a&queue=b", "?queue: given twice"),
            ("queue=%ff", "?queue: a text that is UTF-8"),
        ] {
            let problem = Query::parse(Some(query), &["queue", "vhost"]).expect_err(query);
            assert_eq!(problem.detail.as_deref(), Some(detail));
        }
    }
}
