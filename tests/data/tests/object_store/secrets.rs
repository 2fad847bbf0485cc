//! Credentials are in no output: not in messages of success or failure, datasets, notes or caches.

use std::ffi::OsString;
use std::path::Path;

use helpers::object_store::{Store, url};
use helpers::store_faults::{Disturbance, Disturbed, When};
use helpers::{SECRETS, args, assert_without_secrets, command, contents, folder, phantom, with_secrets};

/// Searches all files below a folder, with their names.
fn assert_clean(folder: &Path, what: &str) {
    for (name, bytes) in contents(folder) {
        assert_without_secrets(&bytes, &format!("{what}: {name}"));
        assert_without_secrets(name.as_bytes(), what);
    }
}

#[test]
fn credentials_are_in_no_message_and_no_file() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 6);
    let (staging, cache) = (temporary.path().join("staging"), temporary.path().join("cache"));
    let small = ["--size", "64", "--vocab-size", "400", "--rows-per-shard", "4", "--jobs", "1"];
    let ingesting = |prefix: &str| {
        let mut all = args!["mimic-cxr", &raw, url(prefix), "--staging", &staging].to_vec();
        all.extend(small.map(Into::into));
        all
    };
    let export = temporary.path().join("export");
    let commands = |round: usize| -> Vec<(&str, Vec<OsString>)> {
        let name = format!("n{round}");
        vec![
            ("ingest", ingesting(&format!("set-{round}"))),
            ("dataset", args!["split", url("set-0"), "--name", &name].to_vec()),
            ("dataset", args!["inspect", url("set-0")].to_vec()),
            ("dataset", args!["verify", url("set-0")].to_vec()),
            ("dataset", args!["bench", url("set-0"), "--size", "32", "--seconds", "0.2"].to_vec()),
            ("dataset", args!["export", url("set-0"), export.join(&name), "--to", "csv"].to_vec()),
        ]
    };
    let run = |settings: Vec<(String, String)>, round: usize, what: &str| {
        let mut succeeded = 0;
        for (program, arguments) in commands(round) {
            let mut command = command(program);
            command.args(&arguments).envs(with_secrets(settings.clone()));
            command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").env("MRM_CACHE_DIR", &cache);
            let output = command.output().expect("the binary starts");
            let what = format!("{what}: {program} {:?}", arguments[0]);
            assert_without_secrets(&[output.stdout, output.stderr].concat(), &what);
            succeeded += usize::from(output.status.success());
        }
        assert_clean(temporary.path(), what);
        succeeded
    };
    assert_eq!(run(store.settings(), 0, "undisturbed"), 6);
    let disturbances = [
        Disturbance::Echo(403),
        Disturbance::Echo(400),
        Disturbance::Echo(501),
        Disturbance::Refusal(403, "ExpiredToken"),
        Disturbance::Refusal(500, "InternalError"),
        Disturbance::Cut,
        Disturbance::Short,
        Disturbance::Flip,
    ];
    let mut failed = 0;
    for (at, disturbance) in disturbances.into_iter().enumerate() {
        for first in [1, 4] {
            let round = 1 + 2 * at + first / 4;
            let disturbed = Disturbed::of(&store, disturbance, When::From(first), |_| true, ("set", "old"));
            let mut settings = disturbed.settings();
            settings.push(("MRM_STORE_TIMEOUT".to_owned(), "0.1".to_owned()));
            failed += 6 - run(settings, round, &format!("{disturbance:?} from {first}"));
            assert!(!disturbed.disturbed().is_empty());
        }
    }
    eprintln!("{failed} commands failed");
    assert!(failed > 2 * 8);
    // An endpoint with a login, where nobody answers.
    let login = format!("http://{}:{}@127.0.0.1:1", SECRETS[0].1, SECRETS[1].1);
    let mut settings = store.settings();
    settings.extend([("AWS_ENDPOINT_URL".to_owned(), login), ("MRM_STORE_TIMEOUT".to_owned(), "0".to_owned())]);
    assert_eq!(run(settings, 90, "a login"), 0);
    for (name, bytes) in store.storage("").list("").expect("a listing").into_iter().map(|found| {
        let bytes = store.storage("").read(&found.name).expect("an object");
        (found.name, bytes)
    }) {
        assert_without_secrets(&bytes, &name);
    }
}
