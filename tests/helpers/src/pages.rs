//! Commands and options that the pages of the repository show.

use std::fs;

use crate::{args, ok, repository};

/// Pages with commands of the binaries.
pub const PAGES: [&str; 19] = [
    "README.md",
    "CONTRIBUTING.md",
    "ingest/README.md",
    "dataset/README.md",
    "trainer/README.md",
    "docs/cluster.md",
    "docs/datasets.md",
    "docs/evaluation.md",
    "docs/format.md",
    "docs/objectives.md",
    "docs/published.md",
    "docs/reproduce.md",
    "docs/self-distillation.md",
    "docs/testing.md",
    "notebooks/README.md",
    "trainer/demo.sh",
    "trainer/experiments/phantom.sh",
    "trainer/experiments/real.sh",
    "trainer/experiments/reproduce.sh",
];

/// The text of a page of the repository.
pub fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).expect("a page")
}

/// Lines of code blocks, each with the lines that continue it after a backslash or with an indent, and spans of code.
fn code(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (number, block) in page.split("```").enumerate() {
        if number % 2 == 0 {
            found.extend(block.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")));
            continue;
        }
        let mut continues = false;
        for line in block.lines() {
            match found.last_mut().filter(|_| continues || line.starts_with(' ')) {
                Some(last) => *last += line,
                None => found.push(line.to_owned()),
            }
            continues = line.ends_with('\\');
        }
    }
    found
}

/// Asserts that each option which a page gives to a command of a program is one that the command has. Returns how many
/// there are.
pub fn check_options(program: &str) -> usize {
    let mut checked = 0;
    for name in PAGES {
        for line in code(&page(name)) {
            let mut words = line.split_whitespace().skip_while(|word| ["cargo", "time"].contains(word)).peekable();
            if words.next() != Some(program) {
                continue;
            }
            // A synopsis has many commands, or none if it shows the common options.
            let Some(command) = words
                .next()
                .filter(|word| !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
            else {
                continue;
            };
            let help = ok(program, args![command, "--help"]);
            let line = line.split("   #").next().unwrap_or_default();
            for option in line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|w| w.starts_with("--"))
            {
                checked += 1;
                let listed = help.split_whitespace().any(|word| word.trim_end_matches(',') == option);
                assert!(listed, "{name}: `{program} {command}` has no option {option}: {line}");
            }
        }
    }
    checked
}
