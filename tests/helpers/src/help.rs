//! What every binary offers beside its work: completions, manual pages, examples in `--help`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::{args, fails, folder, is_installed, ok, text};

/// Names of the subcommands that `--help` lists.
fn subcommands(program: &str) -> Vec<String> {
    let message = ok(program, ["--help"]);
    let listed = message.split("Commands:\n").nth(1).expect("commands").split("\n\n").next().expect("a list");
    let named = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Asserts that the completions of a program name all its subcommands, and that the installed shells accept them.
pub fn check_completions(program: &str) {
    let temporary = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ok(program, ["completions", shell]);
        assert!(script.contains(program), "{program} {shell}");
        for name in subcommands(program) {
            assert!(script.contains(&name), "{program} {shell}: {name}");
        }
        if shell == "bash" || (matches!(shell, "zsh" | "fish") && is_installed(shell)) {
            let path = temporary.path().join(format!("{program}.{shell}"));
            fs::write(&path, script).expect("written");
            let checked = Command::new(shell).arg("-n").arg(&path).output().expect("the shell starts");
            assert!(checked.status.success(), "{program} {shell}: {}", text(&checked.stderr));
        }
    }
    assert!(fails(program, 2, ["completions", "cmd"]).contains("bash"));
}

/// Asserts that each subcommand of a program has a manual page, which groff reads where it is installed.
pub fn check_manual_pages(program: &str) {
    let temporary = folder();
    let pages = temporary.path().join("deep").join(program);
    ok(program, args!["man", &pages]);
    let found: BTreeSet<String> = fs::read_dir(&pages)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let named = subcommands(program).into_iter().map(|name| format!("{program}-{name}.1"));
    assert_eq!(found, named.chain([format!("{program}.1")]).collect());
    for page in &found {
        let path = pages.join(page);
        let page = fs::read_to_string(&path).expect("a page");
        assert!(page.contains(".TH") && page.contains(".SH NAME"), "{page}");
        if is_installed("groff") {
            let set = Command::new("groff").args(["-Kutf8", "-man", "-Tutf8", "-ww", "-z"]).arg(&path).output();
            let set = set.expect("groff starts");
            assert!(set.status.success() && set.stderr.is_empty(), "{}: {}", path.display(), text(&set.stderr));
        }
    }
    let again = temporary.path().join("again");
    ok(program, args!["man", &again]);
    assert_eq!(fs::read(again.join(format!("{program}.1"))).ok(), fs::read(pages.join(format!("{program}.1"))).ok());
}

/// Asserts that `--help` of each subcommand of a program shows an example.
pub fn check_examples(program: &str) {
    for name in subcommands(program) {
        let message = ok(program, [&name, "--help"]);
        let example = message.lines().skip_while(|line| !line.starts_with("Example")).collect::<Vec<_>>().join("\n");
        // These two have the same text in all programs.
        let shown = if matches!(name.as_str(), "completions" | "man") { "dataset" } else { program };
        assert!(example.contains(&format!("{shown} {name} ")), "{program} {name} --help shows no example:\n{message}");
    }
}
