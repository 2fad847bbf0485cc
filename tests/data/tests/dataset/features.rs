//! Features: `mrm-dataset` without them builds without polars, object stores and command lines; those of the Python package are
//! the workspace's.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The lines of `cargo tree`.
fn tree(arguments: &[&str]) -> Vec<String> {
    let tree = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["tree", "--offline", "--locked", "--prefix", "none"])
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo starts");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// Names of the packages that `mrm-dataset` depends on.
fn dependencies(arguments: &[&str]) -> Vec<String> {
    let lines = tree(&[&["-p", "mrm-dataset", "-e", "normal"], arguments].concat());
    lines.iter().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Packages that only features add. Of polars it is every package.
const OPTIONAL: [&str; 8] =
    ["clap", "clap_complete", "indicatif", "object_store", "polars", "polars-core", "tar", "tokio"];

#[test]
fn heavy_dependencies_come_with_features_only() {
    let default = dependencies(&[]);
    let bare = dependencies(&["--no-default-features"]);
    for name in OPTIONAL {
        assert!(default.iter().any(|found| found == name), "`{name}` is missing with default features");
    }
    let unwanted =
        |name: &&String| OPTIONAL.contains(&name.as_str()) || ["polars", "clap"].iter().any(|p| name.starts_with(p));
    assert_eq!(bare.iter().find(unwanted), None, "without features");
    assert!(bare.iter().any(|name| name == "parquet") && bare.len() < default.len());
    let cloud = dependencies(&["--no-default-features", "--features", "cloud"]);
    assert!(cloud.iter().any(|name| name == "object_store") && !cloud.iter().any(|name| name == "polars"));
}

/// maturin builds `mrm-python` alone. With other features than in the workspace, Arrow and polars would compile again.
#[test]
fn the_python_package_has_the_features_of_the_workspace() {
    let features = |of: &[&str]| -> BTreeSet<String> {
        let lines = tree(&[&["-e", "no-dev", "--format", "{p} {f}"], of].concat());
        lines.iter().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let (package, workspace) = (features(&["-p", "mrm-python"]), features(&["--workspace"]));
    let different: Vec<&String> = package.difference(&workspace).collect();
    assert!(
        package.len() > 100 && different.is_empty(),
        "name these features in dataset/python/Cargo.toml: {different:?}"
    );
}
