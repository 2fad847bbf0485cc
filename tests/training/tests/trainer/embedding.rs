//! Features of the encoder, and the benchmark.

use std::sync::Arc;

use arrow_array::{Array, FixedSizeListArray, Float32Array, StringArray};
use dataset::transform::Transform;
use helpers::{args, fails, folder, ok};
use serde_json::Value;
use tch::Device;
use tch::nn::VarStore;
use trainer::config::PretrainConfig;
use trainer::model::classifier::{ClassifierConfig, VitClassifier};
use trainer::task::objective::images;
use trainer::train::run_dir;
use trainer::weights::load_tensors;
use trainer::weights::source::read_weights;
use training::{dataset, pretrained};

#[test]
fn features_equal_the_output_of_the_encoder() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 20);
    let out = temporary.path().join("features.parquet");
    let message = ok("trainer", args!["embed", "--data", &data, "--weights", &mrm, "--device", "cpu", "--out", &out]);
    assert!(message.contains("32 features each"), "{message}");
    let batches = dataset::format::table::read_table(&out).expect("a table");
    let ids = dataset::format::table::column::<StringArray>(&batches[0], "record_id").expect("identifiers");
    let features = dataset::format::table::column::<FixedSizeListArray>(&batches[0], "features").expect("features");
    assert_eq!((features.value_length(), features.len()), (32, ids.len()));
    // The features of single records, computed with the library.
    let set = Arc::new(dataset::Dataset::open(&data).expect("a dataset"));
    let config: PretrainConfig =
        run_dir::load_config(&mrm).expect("a configuration").read().expect("of a pre-training run");
    let store = VarStore::new(Device::Cpu);
    let sizes =
        ClassifierConfig { vit: config.model.vit.clone(), classes: 1, drop_path: 0.0, ..ClassifierConfig::default() };
    let model = VitClassifier::new(&store.root(), &sizes).expect("a model");
    load_tensors(&store, &read_weights(&mrm).expect("weights")).expect("loaded");
    for place in [0, ids.len() - 1] {
        let row = set.row_of(ids.value(place)).expect("a record") as u32;
        let transform = Transform {
            mean: config.data.mean as f32,
            std: config.data.std as f32,
            ..Transform::evaluate(config.model.vit.image_size as u32)
        };
        let loader = dataset::Loader::builder(&set).rows(vec![row]).batch_size(1).transform(transform).build();
        let batch = loader.expect("a loader").next_batch().expect("a batch");
        let pooled = model.features(&images(&batch, Device::Cpu), false).expect("features");
        let pooled = Vec::<f32>::try_from(pooled.view([-1])).expect("floats");
        let stored = features.value(place);
        let stored = stored.as_any().downcast_ref::<Float32Array>().expect("floats");
        let largest = pooled.iter().zip(stored.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-5, "{largest}");
    }

    // A subset of a split, with a weights file of the run.
    let file = mrm.join("latest/model.safetensors");
    let some = temporary.path().join("some.parquet");
    let mut all = args!["embed", "--data", &data, "--weights", &file, "--device", "cpu", "--out", &some].to_vec();
    all.extend(args!["--split", "main", "--subset", "test"]);
    ok("trainer", all);
    let fewer = dataset::format::table::read_table(&some).expect("a table");
    assert!(fewer[0].num_rows() < batches[0].num_rows());
    let message = fails("trainer", 1, args!["embed", "--data", &data, "--weights", &data, "--out", &some]);
    assert!(message.contains("--preset"), "{message}");
}

#[test]
fn the_parts_of_a_benchmark_add_up() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let bench = |batch: &str, more: &[&str]| -> Value {
        let mut all = args!["bench", "--preset", "mrm-vit-tiny", "--device", "cpu", "--batch-size", batch].to_vec();
        all.extend(args!["--steps", "2", "--warmup", "1", "--json"]);
        all.extend(more.iter().map(Into::into));
        serde_json::from_str(&ok("trainer", all)).expect("JSON")
    };
    // A CPU without bf16 takes a minute for a few images.
    for (measured, batch, loads) in [
        (bench("4", &["--set", "model.bert.vocab_size=500"]), 4.0, false),
        (bench("1", &["--data", &data.to_string_lossy(), "--set", "run.precision=bf16"]), 1.0, true),
    ] {
        let value = |key: &str| measured[key].as_f64().unwrap_or_else(|| panic!("{key}: {measured}"));
        assert_eq!(measured["loads"], loads);
        assert_eq!(value("batch"), batch);
        assert!(value("utilization") > 0.0 && value("peak_memory_gib") > 0.01);
        let shares = measured["shares"].as_object().expect("shares");
        assert!((shares.values().filter_map(Value::as_f64).sum::<f64>() - 1.0).abs() < 1e-6);
    }
    // A batch larger than the dataset counts its records only.
    let records = dataset::Dataset::open(&data).expect("a dataset").len() as f64;
    let whole = bench("64", &["--data", &data.to_string_lossy()]);
    assert_eq!(whole["batch"].as_f64(), Some(records));
}
