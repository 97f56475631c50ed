//! The parts of a `Cargo.toml` that the checks need, read line by line: the workspace keeps one
//! dependency a line, so no TOML parser is wanted here.

/// One line of a dependency table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency<'a> {
    pub(crate) name: &'a str,
    /// What stands after the name: `.workspace = true`, ` = "1"`, ` = { … }`.
    pub(crate) rest: &'a str,
}

impl<'a> Dependency<'a> {
    pub(crate) fn is_from_workspace(&self) -> bool {
        let rest: String = self.rest.split_whitespace().collect();
        rest == ".workspace=true" || rest.starts_with("={workspace=true")
    }

    /// The name of the package, which differs when the line renames it.
    pub(crate) fn package(&self) -> &'a str {
        match self.rest.split_once("package = \"") {
            Some((_, rest)) => rest.split('"').next().unwrap_or(""),
            None => self.name,
        }
    }
}

/// What the crate needs to be built: `[dependencies]` and its kinds per target, not for tests.
pub(crate) fn normal_dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    table(manifest, |it| {
        it == "dependencies"
            || it == "build-dependencies"
            || (it.starts_with("target.") && it.ends_with(".dependencies"))
    })
}

pub(crate) fn workspace_dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    table(manifest, |it| it == "workspace.dependencies")
}

/// The value of `key` in `[package]`.
pub(crate) fn package_key<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    let lines = table(manifest, |it| it == "package");
    let line = lines.into_iter().find(|it| it.name == key)?;
    Some(line.rest.trim_start_matches([' ', '=']).trim_matches('"'))
}

fn table(manifest: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Dependency<'_>> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            inside = is_wanted(header.trim_end().trim_end_matches(']'));
        } else if inside && line.starts_with(|it: char| it.is_alphabetic()) {
            let end = line.find(['.', ' ', '=']).unwrap_or(line.len());
            lines.push(Dependency { name: &line[..end], rest: line[end..].trim_end() });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"ferrymq-broker\"\n\n[dependencies]\n\
        stdx.workspace = true\nbytes = \"1\"\n\n[dev-dependencies]\nproptest.workspace = true\n\n\
        [target.'cfg(unix)'.dependencies]\nrustix.workspace = true\n";

    #[test]
    fn tests_only_dependencies_are_not_normal() {
        let names: Vec<&str> = normal_dependencies(MANIFEST).iter().map(|it| it.name).collect();
        assert_eq!(vec!["stdx", "bytes", "rustix"], names);
    }

    #[test]
    fn version_beside_the_workspace_is_seen() {
        let found = normal_dependencies(MANIFEST);
        assert!(found[0].is_from_workspace() && !found[1].is_from_workspace());
    }

    #[test]
    fn renamed_package_is_known_by_its_real_name() {
        let root =
            "[workspace.dependencies]\nbroker = { package = \"ferrymq-broker\", path = \"x\" }\n";
        assert_eq!("ferrymq-broker", workspace_dependencies(root)[0].package());
        assert_eq!(Some("ferrymq-broker"), package_key(MANIFEST, "name"));
    }
}
