//! Documents tell the truth: names in the map exist, links lead somewhere, dependencies have a
//! reason.

use std::{fs, path::Path};

use crate::{
    manifest,
    report::Report,
    source::{Source, find_word, first_word},
};

const MAP: &str = "ARCHITECTURE.md";
const PLAN: &str = "docs/test-plan.md";
const REASONS: &str = "docs/dependencies.md";

pub(crate) fn check(root: &Path, sources: &[Source], report: &mut Report) {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace has one");
    match fs::read_to_string(root.join(MAP)) {
        Ok(map) => check_map(MAP, &map, &World { root, sources, manifest: &manifest }, report),
        Err(_) => report.add(MAP, "is missing: every project has a map"),
    }
    let plan = fs::read_to_string(root.join(PLAN)).unwrap_or_default();
    check_map(PLAN, &plan, &World { root, sources, manifest: &manifest }, report);
    let reasons = fs::read_to_string(root.join(REASONS)).unwrap_or_default();
    check_reasons(&manifest, &reasons, report);
    for path in markdown_files(root) {
        let text = fs::read_to_string(root.join(&path)).expect("a document is UTF-8 text");
        check_links(root, &path, &text, report);
    }
}

struct World<'a> {
    root: &'a Path,
    sources: &'a [Source],
    manifest: &'a str,
}

impl World<'_> {
    /// A path counts from the root, or, for short, from `crates/`.
    fn has_path(&self, path: &str) -> bool {
        let wanted = path.trim_end_matches('/');
        let in_sources = self.sources.iter().any(|it| {
            it.path == wanted || it.path.strip_prefix("crates/").is_some_and(|it| it == wanted)
        });
        let on_disk = |base: &str| self.root.join(base).join(wanted).exists();
        in_sources || on_disk("") || on_disk("crates")
    }

    fn has_name(&self, name: &str) -> bool {
        let is_crate = |it: &str| self.has_path(&format!("crates/{it}"));
        let is_written = |it: &str| self.sources.iter().any(|s| find_word(&s.code, it).count() > 0);
        is_crate(name) || is_written(name)
    }

    fn has_function(&self, name: &str) -> bool {
        let declared = |it: &str, s: &Source| find_word(&s.code, it).count() > 0;
        let words = [format!("fn {name}"), format!("mod {name}"), format!("macro_rules! {name}")];
        self.sources.iter().any(|s| words.iter().any(|it| declared(it, s)))
    }

    fn is_foreign(&self, name: &str) -> bool {
        let dependencies = manifest::workspace_dependencies(self.manifest);
        let is_ours = |it: &str| it.starts_with("ferrymq");
        let mut foreign = dependencies.iter().filter(|it| !is_ours(it.package()));
        ["std", "core", "alloc", "clippy"].contains(&name)
            || foreign.any(|it| it.name.replace('-', "_") == name)
    }
}

/// A map that lies is worse than none.
fn check_map(path: &str, map: &str, world: &World<'_>, report: &mut Report) {
    for (index, line) in map.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2) {
            if !exists(name, world) {
                let place = format!("{path}:{}", index + 1);
                report.add(place, format!("names `{name}`, which does not exist"));
            }
        }
    }
}

fn exists(name: &str, world: &World<'_>) -> bool {
    let looks_like_file = [".rs", ".md", ".toml"].iter().any(|it| name.ends_with(it))
        || name.starts_with("crates/")
        || name.ends_with('/');
    if name.contains(['*', ' ', '<', '{', '…']) {
        return true;
    }
    if looks_like_file {
        return world.has_path(name);
    }
    if is_test_name(name) {
        return world.has_function(name);
    }
    let Some((owner, member)) = name.rsplit_once("::") else { return true };
    let first = first_word(owner);
    if world.is_foreign(first) {
        return true;
    }
    let owner = owner.rsplit("::").next().unwrap_or(owner);
    let member = member.trim_end_matches("()");
    let is_type = member.starts_with(|it: char| it.is_uppercase());
    let member_exists = if is_type { world.has_name(member) } else { world.has_function(member) };
    world.has_name(first_word(owner)) && member_exists
}

/// A test is called by what it says: a sentence of many words.
fn is_test_name(name: &str) -> bool {
    let is_snake = name.chars().all(|it| it.is_ascii_lowercase() || it == '_');
    is_snake && 3 < name.matches('_').count()
}

/// Every foreign package the workspace names has a line that says why it is there.
fn check_reasons(manifest: &str, reasons: &str, report: &mut Report) {
    let dependencies = manifest::workspace_dependencies(manifest);
    let foreign = dependencies.iter().filter(|it| !it.package().starts_with("ferrymq"));
    for name in foreign.map(|it| it.name) {
        if !reasons.contains(&format!("`{name}`")) {
            report.add(REASONS, format!("gives no reason for `{name}`"));
        }
    }
    for line in reasons.lines().filter_map(|it| it.strip_prefix("| `")) {
        let name = line.split('`').next().unwrap_or("");
        if !dependencies.iter().any(|it| it.name == name) {
            report.add(REASONS, format!("explains `{name}`, which the workspace does not use"));
        }
    }
}

fn markdown_files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions", "conformance", "fuzz"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let name = entry.expect("a folder of the workspace is readable").file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".md") {
                found.push(format!("{folder}/{name}").trim_start_matches('/').to_owned());
            }
        }
    }
    found.sort();
    found
}

fn check_links(root: &Path, path: &str, text: &str, report: &mut Report) {
    let folder = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
    for (index, line) in text.lines().enumerate() {
        for link in line.split("](").skip(1).filter_map(|it| it.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            let is_local = !target.is_empty() && !target.contains(':');
            if is_local && !root.join(folder).join(target).exists() {
                let place = format!("{path}:{}", index + 1);
                report.add(place, format!("links to {target}, which does not exist"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    #[test]
    fn map_that_names_a_lost_thing_is_reported() {
        let text = "pub struct Log;\nimpl Log { pub fn commit(&self) {} }\n";
        let sources = [Source::new("storage", "crates/storage/src/log.rs", Kind::Code, text)];
        let manifest = "[workspace.dependencies]\nbytes = \"1\"\n";
        let world = World { root: Path::new("/nowhere"), sources: &sources, manifest };
        let map = "`storage/src/log.rs` `Log::commit`, then `Log::flush`\nsee `gone.rs`, \
                   `a_lost_test_of_many_words`, `Lost::commit`, `Message`, `bytes::Bytes` and `std::fs::File::open`";
        let mut report = Report::default();
        check_map(MAP, map, &world, &mut report);
        let lost =
            |line, name| format!("ARCHITECTURE.md:{line}: names `{name}`, which does not exist");
        let expected = vec![
            lost(1, "Log::flush"),
            lost(2, "gone.rs"),
            lost(2, "a_lost_test_of_many_words"),
            lost(2, "Lost::commit"),
        ];
        assert_eq!(expected, report.findings);
    }

    #[test]
    fn dependency_and_its_reason_come_and_go_together() {
        let mut report = Report::default();
        let manifest = "[workspace.dependencies]\nbytes = \"1\"\nrpds = \"1\"\n";
        check_reasons(manifest, "| `bytes` | bodies |\n| `slab` | gone |\n", &mut report);
        let expected = [
            "docs/dependencies.md: gives no reason for `rpds`",
            "docs/dependencies.md: explains `slab`, which the workspace does not use",
        ];
        assert_eq!(expected.as_slice(), report.findings);
    }

    #[test]
    fn dead_link_is_reported_and_a_web_address_is_not_followed() {
        let mut report = Report::default();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let text = "[a](Cargo.toml#x) [b](gone.md) [c](https://example.org/) [d](#here)";
        check_links(root, "x.md", text, &mut report);
        assert_eq!(vec!["x.md:1: links to gone.md, which does not exist"], report.findings);
    }
}
