//! A join in an object store is that of a folder.

use dataset::Dataset;
use helpers::object_store::{Store, ingesting, url};
use helpers::{args, contents, folder, ingest, ok, phantom, records};

use crate::shared::{joined, joining, table};

#[test]
fn an_object_store_holds_the_joins_of_a_folder() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    ingest("mimic-cxr", &raw, &local, &[]);
    store.ok("ingest", &ingesting(&raw, &url("set"), &staging, &[]));
    let all = records(&local);
    let rows = all.iter().enumerate().filter(|(row, _)| row % 3 != 0);
    let rows = rows.map(|(row, record)| format!("{},{},text {row}", record.image_id, row % 2));
    let path = table(temporary.path(), "table.csv", "id,Hernia,said", rows);
    for words in
        [&["--as", "labels", "--name", "hernia"][..], &["--as", "texts", "--name", "said", "--text-columns", "said"]]
    {
        let words = [&["--key", "id"], words].concat();
        ok("ingest", joining(&local, &path, &words));
        let printed = store.ok("ingest", &joining(url("set"), &path, &words));
        assert!(printed.contains("are about records"), "{printed}");
        assert!(store.ok("ingest", &joining(url("set"), &path, &words)).contains("nothing to do"));
    }
    assert!(contents(&local) == store.objects("set"));
    assert!(store.ok("dataset", &args!["verify", url("set")]).contains("all whole"));
    assert!(store.ok("dataset", &args!["inspect", url("set")]).contains("joins     hernia: labels of Hernia; "));
    assert!(
        store
            .ok("dataset", &args!["split", url("set"), "--name", "main", "--labels", "hernia"])
            .contains("set/splits/main.parquet")
    );

    let here = joined(&local, &["hernia", "said"]);
    let opened = Dataset::open_in(store.storage("set")).expect("a dataset");
    let there = opened.with_joins(&["hernia", "said"]).expect("joins");
    assert_eq!(here.labels().expect("labels"), there.labels().expect("labels"));
    for row in 0..here.len() {
        assert_eq!(here.record(row).expect("a record"), there.record(row).expect("a record"));
    }
    store.fails(
        "dataset",
        &args!["inspect", url("set"), "--join", "none"],
        &["join `none`", "there are: hernia, said"],
    );
}
