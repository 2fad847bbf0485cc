//! Report sections, tokens and masking against golden numbers, and trained tokenizers.

use std::fs;
use std::path::Path;

use dataset::loader::masking::{Continuations, mask_words};
use helpers::{args, folder, golden_json, ok, phantom, real_data, write_file};
use ingest::report::{main_sections, normalize_heading, sections};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<i64> {
    value.as_array().expect("a list").iter().map(|v| v.as_i64().expect("a whole number")).collect()
}

#[test]
fn golden_report_masking() {
    let golden = golden_json("report_masking.json");
    let cases = golden["cases"].as_array().expect("cases");
    assert!(!cases.is_empty());
    // The pieces come from the cases themselves: `tokens` lists them for the ids up to the padding.
    let mut pieces: Vec<String> = Vec::new();
    for case in cases {
        let tokens = case["tokens"].as_array().expect("tokens");
        let ids: Vec<i64> = numbers(&case["ids"]).into_iter().filter(|&id| id != 0).collect();
        assert_eq!(ids.len(), tokens.len());
        for (id, token) in ids.iter().zip(tokens) {
            let id = usize::try_from(*id).expect("an id");
            pieces.resize(pieces.len().max(id + 1), String::new());
            token.as_str().expect("a piece").clone_into(&mut pieces[id]);
        }
    }
    let continuations = Continuations::new(pieces.iter().map(String::as_str));
    for case in cases {
        let mut ids = numbers(&case["ids"]);
        let mut draws = case["draws"].as_array().expect("draws").iter().map(|d| d.as_f64().expect("a draw"));
        mask_words(&mut ids, &continuations, 0.5, || draws.next().expect("no more draws than the reference took"));
        assert_eq!(ids, numbers(&case["masked_ids"]), "{}", case["text"]);
        assert_eq!(draws.next(), None, "all draws are used: {}", case["text"]);
    }
}

#[test]
fn golden_report_token_ids() {
    let Some(data) = real_data() else { return };
    let tokenizer =
        ingest::report::tokenizer::load(&data.join("mimic_wordpiece.json")).expect("the recipe's tokenizer");
    let golden = golden_json("report_masking.json");
    for case in golden["cases"].as_array().expect("cases") {
        let ids = numbers(&case["ids"]);
        let text = case["text"].as_str().expect("a text");
        let mut ours: Vec<i64> = ingest::report::tokenizer::token_ids(&tokenizer, text, ids.len())
            .expect("token ids")
            .into_iter()
            .map(i64::from)
            .collect();
        ours.resize(ids.len(), 0);
        assert_eq!(ours, ids, "{text}");
    }
}

#[test]
fn golden_report_sections() {
    let golden = golden_json("report_sections.json");
    let cases = golden.as_array().expect("cases");
    assert!(cases.len() >= 100);
    for case in cases {
        let text = case["text"].as_str().expect("a text").replace("\r\n", "\n").replace('\r', "\n");
        let names: Vec<String> = sections(&text).into_iter().map(|section| section.name).collect();
        let expected: Vec<&str> =
            case["section_names"].as_array().expect("names").iter().map(|n| n.as_str().expect("a name")).collect();
        assert_eq!(names, expected, "{text}");
        let found = main_sections(&text);
        for (ours, key) in [
            (&found.impression, "impression"),
            (&found.findings, "findings"),
            (&found.last_paragraph, "last_paragraph"),
            (&found.comparison, "comparison"),
        ] {
            assert_eq!(ours.as_deref(), case[key].as_str(), "{key} of {text}");
        }
        assert_eq!(found.conclusion(), case["conclusion"].as_str(), "{text}");
    }
}

#[test]
fn golden_report_headings() {
    let golden = golden_json("report_headings.json");
    let golden = golden.as_object().expect("headings");
    assert!(golden.len() > 50, "{}", golden.len());
    for (heading, expected) in golden {
        assert_eq!(normalize_heading(heading), expected.as_str().expect("a name"), "{heading}");
    }
}

#[test]
fn a_tokenizer_is_trained_on_each_text_once() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    // Two notes of one study; the first one is in two rows, and again in another study.
    write_file(
        &raw.join("metadata.csv"),
        "patientid,offset,finding,view,modality,filename,clinical_notes\n\
         1,0,todo,PA,X-ray,a.jpg,alphaphage once\n\
         1,0,todo,PA,X-ray,b.jpg,alphaphage once\n\
         1,0,todo,PA,X-ray,c.jpg,betablock betablock betablock\n\
         1,3,todo,PA,X-ray,d.jpg,alphaphage once\n",
    );
    let out = temporary.path().join("set");
    ok("ingest", args!["covid", &raw, &out, "--no-images", "--vocab-size", "400"]);
    let tokenizer = ingest::report::tokenizer::load(&out.join("tokenizer.json")).expect("a tokenizer");
    assert!(tokenizer.token_to_id("betablock").is_some(), "the second note of the study counts");
    assert_eq!(
        tokenizer.token_to_id("alphaphage"),
        None,
        "a word that stands once in one text, however often it repeats"
    );
}

#[test]
fn a_trained_tokenizer_has_the_configuration_of_the_release() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let out = temporary.path().join("set");
    ok("ingest", args!["mimic-cxr", &raw, &out, "--no-images", "--tokenizer", "train", "--vocab-size", "30000"]);
    let json =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON") };
    let (ours, recipe) = (json(&out.join("tokenizer.json")), json(&data.join("mimic_wordpiece.json")));
    for section in ["version", "truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        assert_eq!(ours[section], recipe[section], "{section}");
        assert!(recipe.get(section).is_some(), "{section}");
    }
    let special = |file: &serde_json::Value| -> Vec<(i64, String, bool)> {
        let of = |token: &serde_json::Value| {
            (
                token["id"].as_i64().expect("an id"),
                token["content"].as_str().expect("text").to_owned(),
                token["special"] == true,
            )
        };
        file["added_tokens"].as_array().expect("tokens").iter().map(of).collect()
    };
    assert_eq!(special(&ours), special(&recipe));
    for key in ["type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"] {
        assert!(ours["model"][key] == recipe["model"][key] && !recipe["model"][key].is_null(), "{key}");
    }
    for (id, token) in ingest::report::tokenizer::SPECIAL.iter().enumerate() {
        assert!(ours["model"]["vocab"][token] == id && recipe["model"]["vocab"][token] == id, "{token}");
    }
    assert!(ours["model"]["vocab"].as_object().expect("a vocabulary").len() > 300);
}
