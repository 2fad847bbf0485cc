//! Credentials are in no output: not in messages of success or failure, datasets, notes or caches.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use dataset::Storage;
use helpers::object_store::{Store, url};
use helpers::store_faults::{Disturbance, Disturbed, When};
use helpers::{
    SECRETS, args, assert_without_secrets, command, contents, folder, ingest, phantom, records, text, with_secrets,
    write_file,
};

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
    let (local, table) = (temporary.path().join("local"), temporary.path().join("hernia.csv"));
    ingest("mimic-cxr", &raw, &local, &[]);
    let rows: String = records(&local).iter().map(|record| format!("{},1\n", record.image_id)).collect();
    write_file(&table, format!("id,Hernia\n{rows}"));
    let export = temporary.path().join("export");
    let commands = |round: usize| -> Vec<(&str, Vec<OsString>)> {
        let name = format!("n{round}");
        let mut join = args!["join", url("set-0"), "--table", &table, "--key", "id", "--as", "labels"].to_vec();
        join.extend(args!["--name", &name]);
        vec![
            ("ingest", ingesting(&format!("set-{round}"))),
            ("dataset", args!["split", url("set-0"), "--name", &name].to_vec()),
            ("ingest", join),
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
    let all = commands(0).len();
    assert_eq!(run(store.settings(), 0, "undisturbed"), all);
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
            failed += all - run(settings, round, &format!("{disturbance:?} from {first}"));
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

/// Reading fails at an endpoint where nobody answers and at one that repeats the request.
#[test]
fn credentials_of_azure_and_google_are_in_no_message() {
    let store = Store::start();
    let repeating = Disturbed::of(&store, Disturbance::Echo(403), When::From(1), |_| true, ("set", "old"));
    let endpoint_of_it = format!("http://{}", repeating.address);
    let (azure, google) = ("az://container/prefix", "gs://bucket/prefix");
    let (azure_key, google_key) = ("AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY");
    // Requests are made only with a valid key: the account key in base64, the service account with these fields.
    let base64 = "MARKEDAZURE0123456789AAA";
    let account = r#"{"private_key": "MARKEDGOOGLE", "private_key_id": "MARKEDID", "client_email": "MARKEDMAIL",
        "disable_oauth": true}"#;
    let endpoints =
        [("http://127.0.0.1:1", "no answer from http://127.0.0.1:1"), (endpoint_of_it.as_str(), "no access")];
    for (endpoint, cause) in endpoints {
        let cases = [
            (azure, azure_key, Some(base64), cause),
            // The shared access signature is used, which is in the URL of a request.
            (azure, azure_key, None, cause),
            (azure, "AZURE_STORAGE_TOKEN", Some("MARKEDBEARER0123456789"), cause),
            (azure, azure_key, Some("MARKED, not in base64"), "no access"),
            (google, google_key, Some(account), cause),
            (google, google_key, Some(r#"{"private_key": "MARKEDGOOGLE"}"#), "missing field"),
        ];
        for (at, name, value, words) in cases {
            let others = [
                ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                ("AZURE_STORAGE_ENDPOINT", endpoint),
                ("AZURE_ALLOW_HTTP", "true"),
                ("GOOGLE_BASE_URL", endpoint),
                ("MRM_STORE_TIMEOUT", "0.1"),
            ];
            let mut settings = with_secrets(others.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec());
            settings.retain(|(other, _)| other != name);
            settings.extend(value.map(|value| (name.to_owned(), value.to_owned())));
            let what = format!("{at} at {endpoint} with {name} {value:?}");

            let begun = Instant::now();
            let mut inspect = command("dataset");
            inspect.args(["inspect", at]).envs(settings.clone()).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
            let output = inspect.output().expect("the binary starts");
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}: {message}");
            assert!(message.contains(at) && message.contains(words), "{what}: {message}");
            assert_eq!(message.lines().count(), 1, "{what}: {message}");
            assert_without_secrets(&[output.stdout, output.stderr].concat(), &what);

            let storage = Storage::at_with(at, settings);
            let shown = format!("{storage:?}");
            let read = storage.and_then(|storage| storage.read("dataset.json"));
            assert!(read.is_err(), "{what}");
            assert_without_secrets(format!("{shown} {read:?}").as_bytes(), &what);
            assert!(begun.elapsed() < Duration::from_mins(1), "{what}: {:?}", begun.elapsed());
        }
    }
    assert!(!repeating.disturbed().is_empty());
}
