//! Texts by name, with the ids of the dataset's tokenizer.

use dataset::tokenizer::token_ids;
use helpers::{args, fails, folder, ok, records};

use crate::shared::{joined, joining, mimic, table};

#[test]
fn texts_are_over_sections_of_their_name() {
    let temporary = folder();
    let data = mimic(temporary.path());
    let all = records(&data);
    let said = |row: usize| format!("Small left effusion, {row} cm.");
    let rows = all.iter().enumerate().filter(|(row, _)| row % 2 == 0);
    let rows = rows.map(|(row, record)| {
        format!("{},\"{}\",{}", record.image_id, said(row), if row == 0 { "" } else { "no effusion" })
    });
    let path = table(temporary.path(), "entities.csv", "dicom_id,summary,short", rows);
    let words = ["--key", "dicom_id", "--as", "texts", "--text-columns", "Impression=summary,entities=short"];
    let printed = ok("ingest", joining(&data, &path, &words));
    assert!(printed.contains("has texts: impression, entities\n"), "{printed}");
    assert!(ok("dataset", args!["verify", &data]).contains("all whole"));
    let seen = joined(&data, &["entities"]);
    let tokenizer = seen.tokenizer().expect("a tokenizer").expect("a tokenizer");
    for (row, record) in all.iter().enumerate() {
        let texts = seen.record(row).expect("a record").texts;
        let others: Vec<_> = record.texts.iter().filter(|text| text.name != "impression").cloned().collect();
        assert_eq!(texts[..others.len()], others, "row {row}");
        let added: Vec<(&str, &str)> =
            texts[others.len()..].iter().map(|text| (text.name.as_str(), text.text.as_str())).collect();
        let (summary, entities) = (said(row), ("entities", "no effusion"));
        match row {
            0 => assert_eq!(added, [("impression", summary.as_str())]),
            even if even % 2 == 0 => assert_eq!(added, [("impression", summary.as_str()), entities]),
            _ => assert!(added.is_empty(), "row {row}: {added:?}"),
        }
        for text in &texts {
            assert_eq!(text.token_ids, token_ids(&tokenizer, &text.text, 48).expect("ids"));
        }
    }
    // Two rows of a record must agree.
    let id = &all[0].image_id;
    let rows = [format!("{id},a"), format!("{id},a"), format!("{id},b")];
    let path = table(temporary.path(), "twice.csv", "id,said", rows);
    let words = ["--key", "id", "--as", "texts", "--text-columns", "said"];
    let message = fails("ingest", 1, joining(&data, &path, &words));
    assert!(
        message.contains("1 rows contradict others") && message.contains("line 4: it differs from an earlier row"),
        "{message}"
    );
    let printed = ok("ingest", joining(&data, &path, &[&words[..], &["--duplicates", "first"]].concat()));
    assert!(printed.contains("1 differ from an earlier row"), "{printed}");
    let texts = joined(&data, &["twice"]).record(0).expect("a record").texts;
    assert_eq!(texts.last().map(|text| text.text.as_str()), Some("a"));
}
