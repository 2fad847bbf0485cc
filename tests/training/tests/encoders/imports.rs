//! `trainer import` of DINOv2 and CLIP, against transformers and timm; `embed`, `probe` and `finetune` on the
//! result.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow_array::{Array, FixedSizeListArray, Float32Array};
use helpers::{args, fails, folder, ok, python_output};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use trainer::model::encoder::VitEncoder;
use trainer::model::vit::{MlpKind, VitConfig};
use trainer::train::run_dir::load_config;
use trainer::weights::source::initialize;
use training::{dataset, torch_python};

/// Difference allowed, relative to the largest number.
const TOLERANCE: f64 = 1e-5;

type State = BTreeMap<String, Tensor>;

/// The encoder of an imported folder, for images of another size if one is given.
fn encoder(imported: &Path, image_size: Option<i64>) -> (VarStore, VitEncoder) {
    let vit = load_config(imported).expect("a configuration").common().expect("common keys").encoder.vit;
    let vit = VitConfig { image_size: image_size.unwrap_or(vit.image_size), ..vit };
    let store = VarStore::new(Device::Cpu);
    let encoder = VitEncoder::new(&store.root(), &vit, 0.0);
    let report = initialize(&store, imported, &|_| false, |_| String::new()).expect("weights");
    assert!(report.is_complete() && report.unexpected.is_empty(), "{report}");
    assert_eq!(report.resized.len(), usize::from(image_size.is_some()));
    (store, encoder)
}

fn close(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.size(), expected.size(), "{name}");
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    let difference = largest(&(found - expected)) / largest(expected);
    assert!(difference < TOLERANCE, "{name}: {difference}");
}

#[test]
fn imported_encoders_compute_what_transformers_and_timm_compute() {
    let Some(mut python) = torch_python("encoders.py") else { return };
    tch::set_num_threads(1);
    tch::manual_seed(4);
    let temporary = folder();
    let at = |name: &str| temporary.path().join(name);
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let probe: Vec<(String, Tensor)> = vec![
        ("images".to_owned(), random(&[2, 3, 56, 56])),
        ("large".to_owned(), random(&[1, 3, 84, 84])),
        ("small".to_owned(), random(&[1, 3, 28, 28])),
        ("gray".to_owned(), Tensor::rand([2, 1, 56, 56], (Kind::Float, Device::Cpu))),
    ];
    Tensor::write_safetensors(&probe, at("probe.safetensors")).expect("written");
    python_output(python.arg(temporary.path()));
    let given: State = Tensor::read_safetensors(at("given.safetensors")).expect("tensors").into_iter().collect();
    let probe: State = probe.into_iter().collect();

    let import = |name: &str, more: &[&str]| {
        let mut all = args!["import", at(name), "--out", at("imported")].to_vec();
        all.extend(more.iter().map(Into::into));
        let _ = fs::remove_dir_all(at("imported"));
        ok("trainer", all)
    };
    let quick = ["--set", "model.vit.mlp=quick-gelu"];
    for (name, more) in [
        ("dinov2", &[][..]),
        ("swiglu", &[]),
        ("registers", &[]),
        ("dinov2-hub", &["--set", "data.mean=0.5", "--set", "data.std=0.5"]),
        ("swiglu-hub", &["--set", "data.mean=0.5"]),
        ("registers-hub", &["--set", "data.mean=0.5"]),
        ("memory/dinov2.pth", &["--set", "data.mean=0.5"]),
        ("clip", &["--set", "data.mean=0.5"]),
        ("clip-model", &["--set", "data.mean=0.5"]),
        ("open-clip", &["--set", "data.mean=0.5", quick[0], quick[1]]),
        ("timm", &["--set", "data.mean=0.5"]),
    ] {
        let message = import(name, more);
        let (_store, encoder) = encoder(&at("imported"), None);
        let tokens = encoder.forward(&probe["images"], false).expect("tokens");
        close(name, &tokens, &given[&format!("{name}.tokens")]);
        assert_eq!(encoder.pool(&tokens), tokens.select(1, 0), "{name}");
        let says_heads = message.contains("no config.json says the number of heads");
        assert_eq!(says_heads, name.contains("hub") || name.contains("pth") || ["open-clip", "timm"].contains(&name));
        match name {
            "registers" => assert!(message.contains("3 register tokens"), "{message}"),
            "clip-model" => assert!(message.contains("left out") && message.contains("text_model.*"), "{message}"),
            "open-clip" => assert!(message.contains("the activation is taken as GELU"), "{message}"),
            _ => {}
        }
        for size in ["large", "small"] {
            if let Some(expected) = given.get(&format!("{name}.{size}")) {
                let images = &probe[size];
                let (_store, encoder) = self::encoder(&at("imported"), Some(images.size()[2]));
                close(&format!("{name} {size}"), &encoder.forward(images, false).expect("tokens"), expected);
            }
        }
        if name == "dinov2-hub" {
            let (store, _encoder) = self::encoder(&at("imported"), Some(84));
            close("offset", &store.variables()["pos_embed"], &given["dinov2-hub.table"]);
        }
        if name == "clip" {
            assert_eq!(encoder.config().mlp, MlpKind::QuickGelu);
        }
    }

    // Statistics that differ by channel: one gray image with one mean and standard deviation gives the same.
    let message = import("imagenet", &[]);
    assert!(message.contains("folded into the patch projection"), "{message}");
    let data = load_config(&at("imported")).expect("a configuration").common().expect("common keys").encoder;
    let (_store, encoder) = encoder(&at("imported"), None);
    let gray = (&probe["gray"] - data.mean) / data.std;
    close("imagenet", &encoder.forward(&gray, false).expect("tokens"), &given["imagenet.gray"]);

    refusals(&at("dinov2"), temporary.path());
    used(&at("imported"), temporary.path());
}

/// What cannot be imported.
fn refusals(dinov2: &Path, folder: &Path) {
    let at = |name: &str| folder.join(name);
    let message = fails("trainer", 1, args!["import", dinov2, "--out", at("file.safetensors")]);
    assert!(message.contains("give --out a folder") && !at("file.safetensors").exists(), "{message}");
    let message = fails("trainer", 1, args!["import", dinov2, "--out", at("imported")]);
    assert!(message.contains("is there already"), "{message}");
    let message = fails("trainer", 1, args!["import", dinov2, "--out", at("no"), "--set", "model.vit.num_layers=3"]);
    assert!(message.contains("not those of an encoder of these sizes") && message.contains("blocks.*"), "{message}");
    let message = fails("trainer", 2, args!["import", dinov2, "--out", at("no"), "--set", "model.vit.head=3"]);
    assert!(message.contains("no key `model.vit.head`"), "{message}");
    let message = fails("trainer", 1, args!["export", at("imported"), "--to", "timm", "--out", at("no")]);
    assert!(message.contains("a variant of ViT"), "{message}");
    assert!(!at("no").exists());
}

/// An imported encoder serves where a run does.
fn used(imported: &Path, folder: &Path) {
    let data = dataset(folder, 24);
    let at = |name: &str| folder.join(name);
    let features = |out: &str, more: &[&str]| {
        let mut all =
            args!["embed", "--data", &data, "--weights", imported, "--device", "cpu", "--out", at(out)].to_vec();
        all.extend(more.iter().map(Into::into));
        let message = ok("trainer", all);
        assert!(message.contains("128 features each"), "{message}");
        let batches = dataset::format::table::read_table(&at(out)).expect("a table");
        let column = dataset::format::table::column::<FixedSizeListArray>(&batches[0], "features").expect("features");
        let first = column.value(0);
        first.as_any().downcast_ref::<Float32Array>().expect("floats").values().to_vec()
    };
    let cls = features("cls.parquet", &[]);
    assert_eq!(cls, features("again.parquet", &["--pooling", "cls"]));
    assert_ne!(cls, features("mean.parquet", &["--pooling", "mean"]));

    let probe =
        args!["probe", "--data", &data, "--weights", imported, "--split", "main", "--device", "cpu", "--draws", "20"];
    ok("trainer", probe.into_iter().chain(args!["--task", "labels:Cardiomegaly,Edema", "--out", at("probe")]));
    assert!(at("probe/probe.json").is_file() && at("probe/probe.md").is_file());

    let run = at("finetuned");
    let mut finetune =
        args!["finetune", "--data", &data, "--run", &run, "--init", imported, "--split", "main"].to_vec();
    finetune.extend(args![
        "--task",
        "labels:Cardiomegaly,Edema",
        "--device",
        "cpu",
        "--steps",
        "2",
        "--batch-size",
        "4"
    ]);
    let message = ok("trainer", finetune);
    assert!(message.contains("missing, left at their initialization: 2 (head.* (2))"), "{message}");
    ok("trainer", args!["evaluate", "--data", &data, "--run", &run, "--split", "main", "--draws", "20"]);
    let encoder = load_config(&run).expect("a configuration").common().expect("common keys").encoder;
    assert_eq!(encoder, load_config(imported).expect("a configuration").common().expect("common keys").encoder);
}
