//! The features of the package `mrm-dataset`: without them it builds without polars, object stores and command lines.

use std::path::Path;
use std::process::Command;

/// Names of the packages that `mrm-dataset` depends on.
fn dependencies(arguments: &[&str]) -> Vec<String> {
    let tree = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["tree", "-p", "mrm-dataset", "-e", "normal", "--offline", "--locked", "--prefix", "none"])
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo starts");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).expect("UTF-8");
    lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
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
