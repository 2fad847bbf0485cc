//! The pages agree with the code: format, options, links; and every subcommand is documented.

use std::fs;

use dataset::Dataset;
use dataset::format::grade::GradeScale;
use dataset::format::record::ImageEncoding;
use dataset::format::schema::schema;
use helpers::pages::{check_options, page};
use helpers::{args, folder, help, made_record, ok, phantom, python, python_output, repository, write_dataset};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

// The Rust code of the pages, which must compile.
include!(concat!(env!("OUT_DIR"), "/rust_blocks.rs"));

const PROGRAMS: [&str; 2] = ["ingest", "dataset"];

#[test]
fn the_format_page_shows_the_schema_of_a_shard() {
    let temporary = folder();
    write_dataset(
        temporary.path(),
        &["Edema", "Pleural Effusion"],
        ImageEncoding::Raw,
        &[(0..130).map(|row| made_record(row, (8, 8), 2)).collect()],
    );
    let shard = fs::File::open(temporary.path().join("shards/part-00000.parquet")).expect("a shard");
    let reader = SerializedFileReader::new(shard).expect("a shard");
    let metadata = reader.metadata();
    let mut printed = Vec::new();
    parquet::schema::printer::print_schema(&mut printed, metadata.file_metadata().schema());
    let page = page("docs/format.md");
    let printed = String::from_utf8(printed).expect("text");
    assert!(page.contains(printed.trim()), "docs/format.md has another schema than\n{printed}");

    let schema = schema(&["Edema".to_owned()], &[GradeScale::default()], ImageEncoding::Raw);
    let table = page.split("## Columns").nth(1).expect("columns").split("The fields of").next().expect("a table");
    let named: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(named, schema.fields().iter().map(|field| field.name()).collect::<Vec<_>>());
    assert_eq!(metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect::<Vec<_>>(), [128, 2]);
}

#[test]
fn the_reader_of_the_format_page_finds_every_image() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 130);
    let set = temporary.path().join("set");
    ok("ingest", args!["mimic-cxr", &raw, &set, "--size", "24", "--vocab-size", "400", "--rows-per-shard", "140"]);
    let printed = python_output(python().arg(repository().join("docs/reader.py")).arg(&set));
    let dataset = Dataset::open(&set).expect("a dataset");
    let mut expected = String::new();
    let mut first = 0;
    for shard in &dataset.manifest().shards {
        for row in 0..shard.rows as usize {
            let image = dataset.record(first + row).expect("a record").image;
            let mut crc = flate2::Crc::new();
            crc.update(&image);
            expected += &format!("{} {row} {} {}\n", shard.path, image.len(), crc.sum());
        }
        first += shard.rows as usize;
    }
    assert!(dataset.manifest().shards.len() > 1 && printed == expected);
}

#[test]
fn the_scaling_pages_show_what_their_script_prints() {
    let printed = python_output(python().arg(repository().join("docs/scaling.py")));
    let (page, tables) = (page("docs/scaling.md"), printed.trim().split("\n\n"));
    let shown: Vec<bool> = tables.map(|table| page.contains(table)).collect();
    assert_eq!(shown, [true; 3], "docs/scaling.md does not show\n{printed}");
    let printed = python_output(python().arg(repository().join("docs/scaling.py")).arg("finetuning"));
    let page = helpers::pages::page("docs/reproduce.md");
    assert!(page.contains(printed.trim()), "docs/reproduce.md does not show\n{printed}");
}

#[test]
fn every_source_has_a_section() {
    let printed = ok("ingest", ["--help"]);
    let text = page("docs/datasets.md");
    let listed = printed.split("Commands:\n").nth(1).expect("commands").split("phantom").next().expect("sources");
    let lines = listed.lines().filter(|line| !line.starts_with("   "));
    let sources: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(sources.len() > 7, "{sources:?}");
    for source in sources {
        assert!(text.contains(&format!("\n## `{source}`\n")), "docs/datasets.md has no section for {source}");
        assert!(text.contains(&format!("`ingest {source} ")), "docs/datasets.md shows no command for {source}");
    }
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_point_to_existing_files_and_headings() {
    let folders = ["", "docs", "dataset", "ingest", "trainer", "tests", "notebooks"];
    let mut checked = 0;
    for folder in folders.map(|name| repository().join(name)) {
        for path in fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|kind| kind != "md") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a page");
            for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                if link.contains("://") || link.contains(' ') {
                    continue;
                }
                let (file, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { folder.join(file) };
                assert!(target.exists(), "{}: no file {link}", path.display());
                if !heading.is_empty() {
                    let text = fs::read_to_string(&target).expect("a page");
                    let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                    assert!(headings.any(|found| found == heading), "{}: no heading {link}", path.display());
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 15, "{checked} links");
}

#[test]
fn options_of_ingest_on_the_pages_exist() {
    let checked = check_options("ingest");
    assert!(checked > 35, "{checked}");
}

#[test]
fn options_of_dataset_on_the_pages_exist() {
    let checked = check_options("dataset");
    assert!(checked > 45, "{checked}");
}

#[test]
fn completions_name_every_subcommand() {
    PROGRAMS.into_iter().for_each(help::check_completions);
}

#[test]
fn every_subcommand_has_a_manual_page() {
    PROGRAMS.into_iter().for_each(help::check_manual_pages);
}

#[test]
fn every_subcommand_shows_an_example() {
    PROGRAMS.into_iter().for_each(help::check_examples);
}
