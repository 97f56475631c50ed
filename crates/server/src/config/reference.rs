//! The help of a key and the table of docs/configuration.md, made from the table of keys.

use super::{
    keys::{KEYS, Key},
    value::Kind,
};
use std::fmt::Write as _;

impl Key {
    /// The help without the line breaks of its source.
    pub fn sentences(&self) -> String {
        self.help.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The help of the flag: what it does, the default and the variable.
    pub fn flag_help(&self) -> String {
        let default = if self.default.is_empty() { "not set" } else { self.default };
        format!("{} [default: {default}] [env: {}]", self.sentences(), self.variable())
    }

    fn default_shown(&self) -> String {
        match (self.kind, self.default) {
            (_, "") => "–".to_owned(),
            (Kind::Names | Kind::Addresses, text) => format!("`[\"{text}\"]`"),
            (_, text) => format!("`{text}`"),
        }
    }
}

/// The reference table in Markdown.
pub fn markdown() -> String {
    let mut page =
        String::from("| key | value | default | flag | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let flag = key.flag().map_or_else(|| "–".to_owned(), |it| format!("`--{it}`"));
        writeln!(
            page,
            "| `{}` | {} | {} | {flag} | {} |",
            key.name,
            key.kind.expected(),
            key.default_shown(),
            key.sentences(),
        )
        .expect("writing to a string cannot fail");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const BEGIN: &str = "<!-- keys: begin -->\n";
    const END: &str = "<!-- keys: end -->";

    /// `WRITE_DOCS=1 cargo test -p ferrymq-server` brings the page up to date.
    #[test]
    fn the_page_has_the_table_of_keys() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the page marks where the keys begin");
        let (table, after) = rest.split_once(END).expect("the page marks where the keys end");
        let current = markdown();
        if std::env::var_os("WRITE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{current}{END}{after}")).unwrap();
        } else {
            let lines = table.lines().zip(current.lines());
            let different = lines.filter(|it| it.0 != it.1).collect::<Vec<_>>();
            assert!(table == current, "run the test with WRITE_DOCS=1: {different:#?}");
        }
    }
}
