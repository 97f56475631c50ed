//! Which crate may name which.

use crate::{manifest, report::Report};

/// Folder, and the folders its normal dependencies may name; `*` is anything.
/// A new arrow here is a change of architecture and a commit of its own.
const LAYERS: &[(&str, &[&str])] = &[
    ("stdx", &[]),
    ("model", &["stdx"]),
    ("catalog", &["stdx", "model"]),
    ("engine", &["stdx", "model"]),
    ("storage", &["stdx"]),
    ("amqp091", &["stdx", "model"]),
    ("broker", &["stdx", "model", "catalog", "engine", "storage"]),
    ("node", &["stdx", "model", "broker", "storage"]),
    ("api", &["stdx", "model"]),
    ("server", &["stdx", "model", "broker", "node", "amqp091", "api"]),
    ("bench", &["stdx", "model", "amqp091"]),
    ("ferrymq", &["server", "node", "bench"]),
    ("sim", &["*"]),
    ("counts", &["*"]),
    ("xtask", &[]),
];

pub(crate) fn check(folder: &str, manifest: &str, report: &mut Report) {
    let place = format!("crates/{folder}/Cargo.toml");
    let Some((_, allowed)) = LAYERS.iter().find(|(it, _)| *it == folder) else {
        return report.add(place, "the crate is not in LAYERS");
    };
    let expected = match folder {
        "ferrymq" => "ferrymq".to_owned(),
        _ => format!("ferrymq-{folder}"),
    };
    if manifest::package_key(manifest, "name") != Some(&expected) {
        report.add(&place, format!("the package of this folder is called {expected}"));
    }
    if !manifest.contains("[lints]\nworkspace = true") {
        report.add(&place, "does not take the lints of the workspace");
    }
    for dependency in manifest::normal_dependencies(manifest) {
        let short = dependency.package().trim_start_matches("ferrymq-");
        let is_ours = LAYERS.iter().any(|(it, _)| *it == short);
        if !dependency.is_from_workspace() {
            let name = dependency.name;
            report
                .add(&place, format!("write `{name}.workspace = true`; the root has the version"));
        }
        if folder == "xtask" {
            report.add(&place, "xtask depends on nothing, so that it always builds");
        } else if is_ours && !allowed.contains(&short) && !allowed.contains(&"*") {
            report.add(&place, format!("may not depend on {short}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_dependencies(folder: &str, dependencies: &str, expected: &[&str]) {
        let mut report = Report::default();
        let manifest = format!(
            "[package]\nname = \"ferrymq-{folder}\"\n[lints]\nworkspace = true\n\
             [dependencies]\n{dependencies}"
        );
        check(folder, &manifest, &mut report);
        let place = format!("crates/{folder}/Cargo.toml: ");
        let expected: Vec<String> = expected.iter().map(|it| format!("{place}{it}")).collect();
        assert_eq!(expected, report.findings);
    }

    #[test]
    fn new_arrow_between_crates_is_reported() {
        check_dependencies("engine", "broker.workspace = true\n", &["may not depend on broker"]);
        check_dependencies("broker", "engine.workspace = true\nbytes.workspace = true\n", &[]);
    }

    #[test]
    fn arrow_for_tests_only_is_allowed() {
        let lines = "[dev-dependencies]\nbroker.workspace = true\n";
        check_dependencies("engine", lines, &[]);
    }

    #[test]
    fn version_outside_the_root_is_reported() {
        let message = "write `bytes.workspace = true`; the root has the version";
        check_dependencies("engine", "bytes = \"1\"\n", &[message]);
    }

    #[test]
    fn unknown_crate_is_reported() {
        check_dependencies("common", "", &["the crate is not in LAYERS"]);
    }

    #[test]
    fn simulator_may_name_everything() {
        check_dependencies("sim", "broker.workspace = true\nnode.workspace = true\n", &[]);
    }
}
