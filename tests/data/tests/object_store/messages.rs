//! One line for each fault, without passwords.

use std::ffi::OsString;
use std::net::TcpListener;

use dataset::transform::Transform;
use dataset::{Dataset, Loader, Storage};
use helpers::object_store::{Store, fails, ingesting, settings, url};
use helpers::{args, command, folder, phantom, text};

#[test]
fn settings_are_trimmed_and_passwords_are_never_shown() {
    let store = Store::start();
    store.storage("set").write("dataset.json", "{}".as_bytes()).expect("written");
    let command_with = |settings: &[(&str, &str)], arguments: &[OsString]| {
        let mut all = store.settings();
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let output = command("dataset").envs(all).env("MRM_STORE_TIMEOUT", "0").args(arguments).output();
        text(&output.expect("the binary starts").stderr)
    };
    let inspect = args!["inspect", url("set")];
    // The object is not a manifest, but it was read.
    let printed = command_with(&[("AWS_ACCESS_KEY_ID", "anyone\n"), ("AWS_SECRET_ACCESS_KEY", " anything ")], &inspect);
    assert!(printed.contains("format version 0"), "{printed}");
    // A request that cannot be sent is reported with the cause.
    let printed = command_with(&[("AWS_ACCESS_KEY_ID", "any\none")], &inspect);
    assert!(printed.contains("error: s3://radiographs/set/dataset.json: the request broke off (called"), "{printed}");

    let dead = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let endpoint = format!("http://someone:SECRET@{dead}");
    for settings in [
        vec![("AWS_ENDPOINT_URL", endpoint.as_str())],
        vec![("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_ALLOW_HTTP", "false")],
        vec![("AWS_ENDPOINT_URL", "http://someone:SE/CRET@host")],
        vec![("AWS_ENDPOINT_URL", "someone:SECRET@host")],
    ] {
        let printed = command_with(&settings, &inspect);
        assert!(printed.contains("error: s3://radiographs/set"), "{printed}");
        assert!(!printed.contains("SECRET") && !printed.contains("CRET"), "{printed}");
    }
    let printed = command_with(&[], &args!["inspect", "s3://someone:SECRET@radiographs/set"]);
    assert!(printed.contains("s3://BUCKET/PREFIX") && !printed.contains("SECRET"), "{printed}");
    let settings = [settings(&dead.to_string()), vec![("AWS_ENDPOINT_URL".to_owned(), endpoint)]].concat();
    let storage = Storage::at_with(url("set"), settings).expect("a place");
    let printed = format!("{storage:?} {storage}");
    assert!(!printed.contains("SECRET") && !printed.contains("anything"), "{printed}");
}

#[test]
fn faults_are_reported_in_one_line() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 12);
    let staging = temporary.path().join("staging");
    store.ok("ingest", &ingesting(&raw, &url("set"), &staging, &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let inspect = |at: &str| args!["inspect", at].to_vec();

    let absent = "s3://no-such-bucket/set";
    store.fails("dataset", &inspect(absent), &["no-such-bucket", "no such bucket"]);
    store.fails("ingest", &ingesting(&raw, absent, &staging, &[]), &["no-such-bucket", "no such bucket"]);
    store.fails("dataset", &inspect(&url("elsewhere")), &["s3://radiographs/elsewhere", "no dataset.json"]);
    for odd in ["ftp://bucket/set", "s3://", "s3:///set", "s3://bucket/a//b", "file://other/set"] {
        store.fails("dataset", &inspect(odd), &[odd.trim_end_matches('/'), "s3://BUCKET/PREFIX"]);
    }
    store.fails("ingest", &ingesting(&raw, "ftp://bucket/set", &staging, &[]), &["ftp://bucket/set", "s3://BUCKET"]);

    // Settings.
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let at = url("set");
    let mut refused = command("dataset");
    let refused = refused.envs(settings(&dead.to_string())).env("MRM_STORE_TIMEOUT", "1").args(["inspect", &at]);
    fails(refused, &[&at, "no answer", &dead.to_string(), "AWS_ENDPOINT_URL"]);
    let mut odd = command("dataset");
    let odd = odd.envs(store.settings()).env("MRM_STORE_TIMEOUT", "soon").args(["inspect", &at]);
    fails(odd, &[&at, "MRM_STORE_TIMEOUT is `soon`"]);
    let mut plain = command("dataset");
    let plain = plain.envs(store.settings()).env_remove("AWS_ALLOW_HTTP").args(["inspect", &at]);
    fails(plain, &[&at, "AWS_ALLOW_HTTP=true"]);
    let mut nobody = command("dataset");
    let nobody = nobody.envs(store.settings()).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let nobody = nobody.env("AWS_METADATA_ENDPOINT", format!("http://{dead}")).args(["inspect", &at]);
    fails(nobody, &[&at, "AWS_ACCESS_KEY_ID"]);

    // Objects that changed after the manifest was written.
    let storage = store.storage("set");
    let shard = storage.read("shards/part-00000.parquet").expect("a shard");
    let name = "shards/part-00000.parquet";
    let verify = args!["verify", &at].to_vec();
    storage.write(name, shard.slice(..shard.len() - 1000)).expect("written");
    let (expected, found) = (shard.len().to_string(), (shard.len() - 1000).to_string());
    store.fails("dataset", &inspect(&at), &[name, &expected, &found]);
    let message = text(&store.run("dataset", &verify).stderr);
    assert!(message.contains(&expected) && message.contains(&found) && message.contains("1 problem in"), "{message}");
    storage.write(name, Vec::<u8>::new()).expect("written");
    store.fails("dataset", &inspect(&at), &[name, "0 bytes"]);
    let mut damaged = shard.to_vec();
    damaged[5000] ^= 1;
    storage.write(name, damaged.clone()).expect("written");
    let message = text(&store.run("dataset", &verify).stderr);
    assert!(message.contains(&format!("{name}, row")) && message.contains("`image` is damaged"), "{message}");
    // The loader reports it too.
    let mut loader = Loader::builder(&store.dataset("set")).transform(Transform::evaluate(16)).build().expect("one");
    let message = loader.next_batch().err().expect("a damaged image").to_string();
    assert!(message.starts_with(&format!("{name}, row")) && message.contains("`image` is damaged"), "{message}");
    let export = raw.parent().expect("a folder").join("export");
    store.fails("dataset", &args!["export", &at, export, "--to", "csv"], &[name, "`image` is damaged"]);
    // An object replaced by another one of the same size after it was opened.
    storage.write(name, shard.clone()).expect("written");
    let dataset = Dataset::open_in(store.storage("set")).expect("a dataset");
    dataset.record(0).expect("a record");
    storage.write(name, damaged).expect("written");
    for error in [dataset.record(1).err(), dataset.image(2).err(), dataset.columns(&["view"]).err()] {
        let message = error.expect("another version").to_string();
        assert!(message.contains(name) && message.contains("replaced after it was opened"), "{message}");
    }
    storage.remove(&[name]).expect("removed");
    store.fails("dataset", &inspect(&at), &[name, "no such object"]);
    let message = text(&store.run("dataset", &verify).stderr);
    assert!(message.contains(name) && message.contains("no such object"), "{message}");
    storage.write(name, shard).expect("written");
    assert!(store.ok("dataset", &verify).contains("all whole"));
}
