//! Options and pages of `trainer`, and what it is linked to.

use std::fs;

use helpers::pages::check_options;
use helpers::{args, binary, fails, help};

// The Rust code of the page, which must compile.
include!(concat!(env!("OUT_DIR"), "/rust_blocks.rs"));

#[test]
fn options_of_trainer_on_the_pages_exist() {
    let checked = check_options("trainer");
    assert!(checked > 90, "{checked}");
}

#[test]
fn completions_name_every_subcommand() {
    help::check_completions("trainer");
}

#[test]
fn every_subcommand_has_a_manual_page() {
    help::check_manual_pages("trainer");
}

#[test]
fn every_subcommand_shows_an_example() {
    help::check_examples("trainer");
}

/// `ingest` and `dataset` must not be.
#[test]
fn trainer_is_linked_to_libtorch() {
    let bytes = fs::read(binary("trainer")).expect("a binary");
    assert!(bytes.windows(8).any(|window| window == b"libtorch"));
}

#[test]
fn numbers_out_of_range_are_usage_errors() {
    let message = fails("trainer", 2, args!["compare", "x", "--specificity", "90"]);
    assert!(message.contains("give a share from 0 to 1"), "{message}");
}
