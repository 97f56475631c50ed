//! How many packages the program drags in: every one is code that somebody has to trust.
//!
//! Counted from `Cargo.lock`, so that the answer needs no network and is the same on every
//! machine: all targets, build scripts included; what only our own tests need is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{manifest, report::Report, source::crate_folders};

const PACKAGES_MAX: usize = 200;
const PROGRAM: &str = "ferrymq";

pub(crate) fn check(root: &Path, report: &mut Report) {
    let count = count(root);
    if PACKAGES_MAX < count {
        report.add("Cargo.lock", format!("{count} packages, {PACKAGES_MAX} allowed"));
    }
}

/// The packages below the program, without our own.
pub(crate) fn count(root: &Path) -> usize {
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap_or_default();
    let workspace = fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let mut ours = BTreeMap::new();
    for folder in crate_folders(root) {
        let path = root.join("crates").join(folder).join("Cargo.toml");
        let manifest = fs::read_to_string(path).expect("a crate has a manifest");
        let name = manifest::package_key(&manifest, "name").unwrap_or("").to_owned();
        ours.insert(name, normal_packages(&manifest, &workspace));
    }
    reachable(&lock, &ours).iter().filter(|it| !ours.contains_key(name_of(it))).count()
}

fn normal_packages(manifest: &str, workspace: &str) -> BTreeSet<String> {
    let known = manifest::workspace_dependencies(workspace);
    let package = |name| known.iter().find(|it| it.name == name).map_or(name, |it| it.package());
    manifest::normal_dependencies(manifest).iter().map(|it| package(it.name).to_owned()).collect()
}

fn name_of(package: &str) -> &str {
    package.split(' ').next().unwrap_or("")
}

/// What the program reaches, as `name version`. `ours` says what our own crates need normally,
/// because the lock file does not tell it from what their tests need.
fn reachable(lock: &str, ours: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let packages = parse(lock);
    let mut waiting = vec![PROGRAM.to_owned()];
    let mut reached = BTreeSet::new();
    while let Some(wanted) = waiting.pop() {
        let is_wanted = |it: &&String| **it == wanted || name_of(it) == wanted;
        let Some(package) = packages.keys().find(is_wanted) else { continue };
        if !reached.insert(package.clone()) {
            continue;
        }
        let allowed = ours.get(name_of(package));
        let needs = |it: &&String| allowed.is_none_or(|names| names.contains(name_of(it)));
        waiting.extend(packages[package].iter().filter(needs).cloned());
    }
    reached
}

/// From `name version` to its dependencies, each `name` or, if ambiguous, `name version`.
fn parse(lock: &str) -> BTreeMap<String, Vec<String>> {
    let mut packages = BTreeMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = block.lines().find_map(|it| it.strip_prefix(key))?;
            Some(line.trim_start_matches(" = ").trim_matches('"'))
        };
        let (Some(name), Some(version)) = (value("name"), value("version")) else { continue };
        let list = block.split_once("dependencies = [").map_or("", |(_, it)| it);
        let list = list.split(']').next().unwrap_or("");
        let needs = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        packages.insert(format!("{name} {version}"), needs);
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
[[package]]
name = "ferrymq"
version = "0.1.0"
dependencies = [
 "bytes",
 "proptest",
 "slab 0.4.0",
]

[[package]]
name = "bytes"
version = "1.0.0"

[[package]]
name = "proptest"
version = "1.0.0"
dependencies = [
 "rand",
]

[[package]]
name = "rand"
version = "1.0.0"

[[package]]
name = "slab"
version = "0.3.0"

[[package]]
name = "slab"
version = "0.4.0"
dependencies = [
 "bytes",
]
"#;

    #[test]
    fn packages_for_tests_are_not_counted() {
        let needs = BTreeSet::from(["bytes".to_owned(), "slab".to_owned()]);
        let ours = BTreeMap::from([("ferrymq".to_owned(), needs)]);
        let reached: Vec<String> = reachable(LOCK, &ours).into_iter().collect();
        assert_eq!(vec!["bytes 1.0.0", "ferrymq 0.1.0", "slab 0.4.0"], reached);
    }
}
