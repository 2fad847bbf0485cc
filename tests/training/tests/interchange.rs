//! `trainer import` and `trainer export`, against checkpoints that PyTorch, timm and transformers wrote and load.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use dataset::random::Stream;
use dataset::tokenizer::ReportTokenizer;
use helpers::{args, fails, folder, golden, ingest, ok, phantom, python_output};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use trainer::config::{overlay, pretrain_preset};
use trainer::model::bert::{Bert, BertConfig};
use trainer::model::classifier::{ClassifierConfig, VitClassifier};
use trainer::model::mrm::{Mrm, MrmConfig, Reconstruct};
use trainer::model::vit::{LAYER_NORM_EPSILON, VitConfig};
use trainer::weights::{load_state, pth};
use training::torch_python;

/// Relative difference allowed for float32 models.
const TOLERANCE: f64 = 1e-4;
/// The sizes of the golden model, over the default preset.
const GOLDEN: [&str; 12] = [
    "model.vit.image_size=64",
    "model.vit.embed_dim=48",
    "model.vit.num_layers=2",
    "model.vit.num_heads=4",
    "model.decoder.embed_dim=24",
    "model.decoder.num_layers=2",
    "model.decoder.num_heads=4",
    "model.bert.embed_dim=32",
    "model.bert.num_layers=2",
    "model.bert.num_heads=4",
    "model.bert.intermediate=64",
    "model.bert.max_positions=24",
];

type State = BTreeMap<String, Tensor>;

fn read(path: &Path) -> State {
    Tensor::read_safetensors(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_iter().collect()
}

/// Whether two states are the same to the bit, and if not, where they differ.
fn assert_same(found: &State, expected: &State, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, tensor) in expected {
        assert_eq!((found[name].kind(), found[name].size()), (tensor.kind(), tensor.size()), "{what}: {name}");
        assert_eq!(&found[name], tensor, "{what}: {name}");
    }
}

fn import(file: &Path, out: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["import", file, "--out", out].to_vec();
    all.extend(more.iter().map(Into::into));
    all
}

fn golden_sizes() -> Vec<&'static str> {
    GOLDEN.iter().flat_map(|setting| ["--set", setting]).collect()
}

/// Checkpoints written by PyTorch: their folder, and a file that none of them may create.
fn checkpoints(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let (made, marker) = (folder.join("made"), folder.join("marker"));
    fs::create_dir(&made).expect("a folder");
    let mut python = torch_python("checkpoints.py")?;
    python_output(python.args([&golden().join("mrm_tiny.safetensors"), &marker, &made]));
    Some((made, marker))
}

#[test]
fn pytorch_checkpoints_are_imported_or_refused() {
    let temporary = folder();
    let Some((made, marker)) = checkpoints(temporary.path()) else { return };
    tch::set_num_threads(1);
    let out = temporary.path().join("out.safetensors");
    let mut message = BTreeMap::new();
    let mut files: Vec<PathBuf> = fs::read_dir(&made).expect("files").flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "safetensors")) {
        let name = file.file_stem().and_then(|name| name.to_str()).expect("a name");
        message.insert(name, ok("trainer", import(&made.join(format!("{name}.pth")), &out, &golden_sizes())));
        assert_same(&read(&out), &read(file), name);
        fs::remove_file(&out).expect("removed");
    }
    assert_eq!(message.len(), 14, "{:?}", message.keys());
    let complete = |name: &str| {
        let message = &message[name];
        assert!(message.contains("loaded 111 tensors\nwritten to"), "{name}: {message}");
        message
    };
    let whole = complete("whole");
    assert!(whole.contains("a PyTorch checkpoint, the weights under `model`; 111 tensors"), "{whole}");
    assert!(whole.contains("not imported: optimizer, epoch, scaler, args, best, random"), "{whole}");
    assert!(complete("bfloat16").contains("110 made float32"));
    for name in ["plain", "parallel", "lightning", "nochecksum", "renamed", "protocol5"] {
        complete(name);
    }
    let evil = complete("evil");
    for (name, why) in [
        ("z.evil", "an object of posix.system"),
        ("z.complex", "elements of type torch.ComplexFloatStorage"),
        ("z.float8", "elements of type float8_e4m3fn"),
        ("z.uint16", "elements of type uint16"),
        ("z.sparse", "an object of torch._utils._rebuild_sparse_tensor"),
        ("z.quantized", "an object of torch._utils._rebuild_qtensor"),
    ] {
        assert!(evil.contains(&format!("{name} ({why})")), "{name}: {evil}");
    }
    assert!(evil.contains("and 1 more") && evil.contains("not imported: evil"), "{evil}");

    for (name, complaint) in [
        ("module", "`model` is an object of torch.nn.modules.linear.Linear, not a state dict"),
        ("evil", "`model` is an object of __builtin__.eval, not a state dict"),
        ("tensor", "not a dict but a tensor"),
        ("keys", "no state dict in it; its keys are: epoch, weights"),
        ("legacy", "in the format of PyTorch before 1.6; save it again"),
        ("script", "a TorchScript archive; take the weights out of it"),
        ("big-endian", "in the byte order `big`"),
        ("compressed", "is compressed"),
        ("storage", "is in storage 3, which the archive does not have"),
        ("short", "reaches outside its storage of"),
        ("pickle", "no data.pkl"),
        ("claim", "more than the file holds"),
    ] {
        let message = fails("trainer", 1, import(&made.join(format!("refused-{name}.pth")), &out, &golden_sizes()));
        assert!(message.contains(complaint) && message.trim_end().lines().count() == 1, "{name}: {message}");
    }
    assert!(!out.exists() && !marker.exists(), "code of a checkpoint ran");

    // A complete checkpoint of an unrelated model.
    let message = fails("trainer", 1, import(&made.join("whole.pth"), &out, &["--preset", "mrm-vit-tiny"]));
    assert!(message.contains("no tensor fits mrm-vit-tiny, nothing was written"), "{message}");
    let tiny = temporary.path().join("tiny.safetensors");
    let tensors: Vec<(String, tch::Tensor)> = (0..4)
        .map(|block| (format!("blocks.{block}.norm1.weight"), tch::Tensor::ones([128], tch::kind::FLOAT_CPU)))
        .chain([("patch_embed.proj.weight".to_owned(), tch::Tensor::ones([128, 3, 8, 8], tch::kind::FLOAT_CPU))])
        .collect();
    tch::Tensor::write_safetensors(&tensors, &tiny).expect("written");
    let message = fails("trainer", 1, import(&tiny, &out, &[]));
    assert!(message.contains("nothing was written; the sizes are those of --preset mrm-vit-tiny"), "{message}");
    let message = fails("trainer", 1, import(&golden().join("metrics.json"), &out, &[]));
    assert!(message.contains("neither a checkpoint written by torch.save nor a safetensors file"), "{message}");
    assert!(!out.exists());

    damaged(&made.join("small.pth"), temporary.path());
    from_mae(&made.join("mae.pth"), temporary.path());
}

/// Truncated and changed files: an error, or the correct tensors; never a panic.
fn damaged(file: &Path, folder: &Path) {
    let (changed, out) = (folder.join("changed.pth"), folder.join("changed.safetensors"));
    let whole = fs::read(file).expect("a file");
    let expected: State = pth::read(file).expect("it is whole").tensors.into_iter().collect();
    let (mut random, mut refused) = (Stream::new(&[5]), 0);
    let mut check = |bytes: &[u8], what: &str, command: bool| {
        fs::write(&changed, bytes).expect("written");
        match pth::read(&changed) {
            Ok(state) => assert_same(&state.tensors.into_iter().collect(), &expected, what),
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains('\n'), "{what}: {error}");
                if command {
                    let message = fails("trainer", 1, import(&changed, &out, &golden_sizes()));
                    assert_eq!(message.trim_end().lines().count(), 1, "{what}: {message}");
                }
            }
        }
    };
    for cut in 0..200 {
        let length = if cut < 40 { cut } else { random.below(whole.len() as u64) as usize };
        check(&whole[..length], &format!("cut to {length}"), cut % 40 == 0);
    }
    for change in 0..600 {
        let mut bytes = whole.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        check(&bytes, &format!("bit changed at {at}"), change % 100 == 0);
    }
    println!("{refused} of 800 refused");

    // A safetensors file has no checksums: changed values may be read, without a panic.
    let settings: Vec<String> = GOLDEN.iter().map(|setting| (*setting).to_owned()).collect();
    let config = overlay(&pretrain_preset("mrm-vit-b16").expect("a preset"), None, &settings).expect("settings");
    write(&expected, &changed);
    let whole = fs::read(&changed).expect("a file");
    for change in 0..200 {
        let mut bytes = whole.clone();
        let at = random.below(1_000) as usize; // the header
        bytes[at] ^= 1 << random.below(8);
        if change % 2 == 0 {
            bytes.truncate(at);
        }
        fs::write(&changed, bytes).expect("written");
        let _ = trainer::commands::import(std::slice::from_ref(&changed), &out, None, &config);
        let _ = fs::remove_file(&out);
    }
    assert!(refused > 400, "{refused}");
    assert!(!out.exists());
}

/// MAE's encoder in pre-training with another decoder width.
fn from_mae(file: &Path, folder: &Path) {
    let out = folder.join("mae.safetensors");
    let message = ok("trainer", import(file, &out, &["--preset", "mrm-vit-tiny", "--verbose"]));
    assert!(message.contains("loaded 54 tensors"), "{message}");
    assert!(message.contains("other shape decoder_embed.weight [32, 128] -> [64, 128]\n"), "{message}");
    assert!(message.contains("matched     blocks.3.attn.qkv.weight\n"), "{message}");
    assert!(message.contains("unexpected  decoder_blocks.1.mlp.fc1.bias\n"), "{message}");
    assert!(message.contains("missing     bert_mlp.weight\n"), "{message}");

    let (raw, set, run) = (phantom(folder, 30), folder.join("set"), folder.join("run"));
    ingest("mimic-cxr", &raw, &set, &[]);
    let pretrain = args![
        "pretrain",
        "--data",
        &set,
        "--run",
        &run,
        "--preset",
        "mrm-vit-tiny",
        "--device",
        "cpu",
        "--init",
        &out,
        "--steps",
        "1",
        "--batch-size",
        "4",
        "--set",
        "data.mean=0.3"
    ];
    let message = ok("trainer", pretrain);
    assert!(message.contains("mae.safetensors: loaded 54 tensors"), "{message}");

    // A run contains its sizes and pixel statistics.
    let exported = folder.join("exported");
    let message = ok("trainer", args!["export", &run, "--to", "timm", "--out", &exported]);
    assert!(message.contains("left out: ") && message.contains("bert_encoder.*"), "{message}");
    let config: serde_json::Value =
        dataset::store::files::read_json(&exported.join("config.json")).expect("a configuration");
    assert_eq!(config["pretrained_cfg"]["mean"], serde_json::json!([0.3, 0.3, 0.3]));
    assert_eq!(config["model_args"]["img_size"], 64);
    finetuned(&set, &run, folder);
    let message = fails("trainer", 1, args!["export", &run, "--to", "timm", "--out", &exported]);
    assert!(message.contains("is there already; give another --out"), "{message}");
    let message = fails("trainer", 1, args!["export", &out, "--to", "vit", "--out", folder.join("no")]);
    assert!(message.contains("--preset names another") && message.contains("expected [1, 1, 768]"), "{message}");
}

/// A fine-tuned run: its findings become timm's labels.
fn finetuned(set: &Path, init: &Path, folder: &Path) {
    let (run, exported) = (folder.join("finetuned"), folder.join("exported-classifier"));
    ok("dataset", args!["split", set, "--name", "main", "--validation", "0.2", "--test", "0.2"]);
    let mut finetune = args!["finetune", "--data", set, "--run", &run, "--init", init, "--split", "main"].to_vec();
    finetune.extend(args!["--task", "labels:Cardiomegaly,Pleural Effusion", "--device", "cpu"]);
    finetune.extend(args!["--steps", "1", "--batch-size", "4"]);
    ok("trainer", finetune);
    let printed = ok("trainer", args!["export", &run, "--to", "timm", "--out", &exported]);
    assert!(printed.starts_with("56 tensors") && !printed.contains("left out"), "{printed}");
    let config: serde_json::Value =
        dataset::store::files::read_json(&exported.join("config.json")).expect("a configuration");
    assert_eq!(config["pretrained_cfg"]["label_names"], serde_json::json!(["Cardiomegaly", "Pleural Effusion"]));
    assert_eq!(config["pretrained_cfg"]["mean"], serde_json::json!([0.3, 0.3, 0.3]));
    assert_eq!(config["pretrained_cfg"]["interpolation"], "bilinear");
    assert_eq!((&config["global_pool"], &config["num_classes"]), (&"avg".into(), &2.into()));
}

/// The variables of a model with noise added, since initial values could hide an error.
fn perturb(store: &VarStore) -> State {
    tch::no_grad(|| {
        for (_, mut variable) in store.variables() {
            if variable.is_floating_point() {
                let noise = Tensor::randn(variable.size(), (Kind::Float, Device::Cpu)) * 0.05;
                let _ = variable.g_add_(&noise);
            }
        }
    });
    store.variables().into_iter().map(|(name, variable)| (name, variable.detach().copy())).collect()
}

fn tiny() -> MrmConfig {
    let mut config = pretrain_preset("mrm-vit-tiny").expect("a preset").model;
    config.bert.vocab_size = 100;
    config
}

/// The encoder's tokens after the final norm, no patch masked: `[B, 1 + L, D]`.
fn tokens(state: &State, vit: &VitConfig, images: &Tensor) -> Tensor {
    let model = Model::classifier(state, vit, 1);
    let tokens = model.1.tokens(images, false).expect("tokens").pop().expect("a block");
    tokens.layer_norm(
        [vit.embed_dim],
        Some(&state["norm.weight"]),
        Some(&state["norm.bias"]),
        LAYER_NORM_EPSILON,
        false,
    )
}

/// A model with its variables.
struct Model<M>(#[allow(dead_code)] VarStore, M);

impl Model<VitClassifier> {
    fn classifier(state: &State, vit: &VitConfig, classes: i64) -> Self {
        let store = VarStore::new(Device::Cpu);
        let config = ClassifierConfig { vit: vit.clone(), classes, drop_path: 0.0, ..ClassifierConfig::default() };
        let model = VitClassifier::new(&store.root(), &config).expect("a model");
        load_state(&store, state.iter().map(|(name, tensor)| (name.as_str(), tensor))).expect("loaded");
        Self(store, model)
    }
}

impl Model<Mrm> {
    fn mrm(config: &MrmConfig) -> Self {
        let store = VarStore::new(Device::Cpu);
        let model = Mrm::new(&store.root(), config).expect("a model");
        Self(store, model)
    }
}

fn write(state: &State, path: &Path) {
    let tensors: Vec<(String, Tensor)> = state.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
    trainer::weights::write(&tensors, path).expect("written");
}

fn assert_close(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.size(), expected.size(), "{name}");
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    let difference = largest(&(found - expected)) / largest(expected);
    assert!(difference < TOLERANCE, "{name}: {difference}");
}

#[test]
fn timm_and_transformers_compute_the_same_outputs() {
    let Some(mut models) = torch_python("models.py") else { return };
    tch::set_num_threads(1);
    let temporary = folder();
    let at = |name: &str| temporary.path().join(name);
    tch::manual_seed(11);
    let images = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
    let large_images = Tensor::randn([1, 3, 224, 224], (Kind::Float, Device::Cpu));
    let noise = Tensor::rand([2, 64], (Kind::Float, Device::Cpu));
    let mut probe = State::new();

    // A pre-trained model: encoders for timm, ViT and ViTMAE.
    let config = tiny();
    let pretrained = perturb(&Model::mrm(&config).0);
    write(&pretrained, &at("pretrained.safetensors"));
    probe.insert("to-timm.tokens".to_owned(), tokens(&pretrained, &config.vit, &images));
    let export = |from: &str, to: &str, out: &str, more: &[&str]| {
        let mut all = args!["export", at(from), "--to", to, "--out", at(out), "--preset", "mrm-vit-tiny"].to_vec();
        all.extend(more.iter().map(Into::into));
        all
    };
    let message = ok("trainer", export("pretrained.safetensors", "timm", "to-timm", &[]));
    assert!(
        message.contains("54 tensors") && message.contains("left out: ") && message.contains("decoder_blocks.* (12)"),
        "{message}"
    );
    ok("trainer", export("pretrained.safetensors", "vit", "to-vit", &[]));
    let message = ok("trainer", export("pretrained.safetensors", "vit-mae", "to-mae-encoder", &[]));
    assert!(message.contains("predicts 768 values a patch (super-resolution), ViTMAE's 192"), "{message}");

    // A model with MAE's decoder.
    let mae = MrmConfig { reconstruct: Reconstruct::ImageOnly, super_resolution: 1, ..tiny() };
    let model = Model::mrm(&mae);
    let mae_state = perturb(&model.0);
    write(&mae_state, &at("mae.safetensors"));
    let as_mae = ["--set", "model.reconstruct=image-only", "--set", "model.super_resolution=1"];
    let message = ok("trainer", export("mae.safetensors", "vit-mae", "to-mae", &as_mae));
    assert!(!message.contains("left out") && message.contains("ViTMAEForPreTraining"), "{message}");
    let output = model.1.forward(&images, None, Some(&noise), false).expect("a forward pass");
    probe.insert("to-mae.pred".to_owned(), output.pred.expect("a prediction"));
    probe.insert("to-mae.loss".to_owned(), output.loss_image.expect("a loss"));

    // A classifier, which only timm loads.
    let store = VarStore::new(Device::Cpu);
    let classifier =
        ClassifierConfig { vit: config.vit.clone(), classes: 3, drop_path: 0.0, ..ClassifierConfig::default() };
    let model = VitClassifier::new(&store.root(), &classifier).expect("a model");
    let classifier = perturb(&store);
    write(&classifier, &at("classifier.safetensors"));
    ok("trainer", export("classifier.safetensors", "timm", "to-timm-classifier", &[]));
    probe.insert("to-timm-classifier.logits".to_owned(), model.logits(&images, false).expect("logits"));
    for to in ["vit", "vit-mae"] {
        let message = fails("trainer", 1, export("classifier.safetensors", to, "none", &[]));
        assert!(message.contains("export it with --to timm") && !at("none").exists(), "{message}");
    }

    // An architecture that timm has by name.
    let small = pretrain_preset("mrm-vit-s16").expect("a preset").model.vit;
    let store = VarStore::new(Device::Cpu);
    let config_small =
        ClassifierConfig { vit: small.clone(), classes: 1, drop_path: 0.0, ..ClassifierConfig::default() };
    let _model = VitClassifier::new(&store.root(), &config_small).expect("a model");
    let mut encoder = perturb(&store);
    for name in ["head.weight", "head.bias"] {
        encoder.remove(name);
    }
    for last in ["weight", "bias"] {
        let norm = encoder.remove(&format!("fc_norm.{last}")).expect("a norm");
        encoder.insert(format!("norm.{last}"), norm);
    }
    write(&encoder, &at("small.safetensors"));
    ok(
        "trainer",
        args![
            "export",
            at("small.safetensors"),
            "--to",
            "timm",
            "--out",
            at("to-timm-small"),
            "--preset",
            "mrm-vit-s16"
        ],
    );
    let written: serde_json::Value = dataset::store::files::read_json(&at("to-timm-small/config.json")).expect("JSON");
    assert!(written["architecture"] == "vit_small_patch16_224" && written["model_args"].is_null(), "{written}");
    probe.insert("to-timm-small.tokens".to_owned(), tokens(&encoder, &small, &large_images));

    for (name, tensor) in [("images", &images), ("large_images", &large_images), ("noise", &noise)] {
        probe.insert(name.to_owned(), tensor.shallow_clone());
    }
    probe.values_mut().for_each(|tensor| *tensor = tensor.detach().contiguous());
    write(&probe, &at("probe.safetensors"));
    let message = python_output(models.arg(temporary.path()));
    assert_eq!(message.lines().count(), 11, "{message}");
    for line in message.lines() {
        let (name, difference) = line.rsplit_once(' ').expect("a name and a number");
        assert!(difference.parse::<f64>().is_ok_and(|difference| difference < TOLERANCE), "{name}: {difference}");
    }

    // Export and import give the same bits.
    let out = at("back.safetensors");
    let of = |state: &State, more: &[&str]| -> State {
        let named = |name: &str| {
            let encoder = ["cls_token", "pos_embed", "patch_embed.", "blocks.", "norm."];
            encoder.iter().chain(more).any(|part| name.starts_with(part))
        };
        state.iter().filter(|(name, _)| named(name)).map(|(name, t)| (name.clone(), t.shallow_clone())).collect()
    };
    for (folder, state) in [
        ("to-timm", of(&pretrained, &[])),
        ("to-vit", of(&pretrained, &[])),
        ("to-mae-encoder", of(&pretrained, &[])),
        ("to-mae", of(&mae_state, &["decoder_", "mask_token"])),
        ("to-timm-classifier", of(&classifier, &["fc_norm.", "head."])),
    ] {
        let message = ok("trainer", import(&at(folder), &out, &["--preset", "mrm-vit-tiny"]));
        assert_eq!(
            message.contains("Hugging Face's names translated"),
            folder.contains("vit") || folder.contains("mae")
        );
        assert_same(&read(&out), &state, folder);
    }

    // Models of timm and transformers.
    let given = read(&at("given.safetensors"));
    for name in ["from-vit", "from-vit-memory.pth", "from-timm.pth", "from-classifier.safetensors"] {
        ok("trainer", import(&at(name), &out, &["--preset", "mrm-vit-tiny"]));
        let state = read(&out);
        let found = if name.starts_with("from-classifier") {
            Model::classifier(&state, &config.vit, 3).1.logits(&images, false).expect("logits")
        } else {
            tokens(&state, &config.vit, &images)
        };
        assert_close(name, &found, &given[name]);
    }
    let message = ok(
        "trainer",
        import(&at("from-mae"), &out, &["--preset", "mrm-vit-tiny", as_mae[0], as_mae[1], as_mae[2], as_mae[3]]),
    );
    assert!(message.contains("loaded 74 tensors\nwritten"), "{message}");
    let model = Model::mrm(&mae);
    load_state(&model.0, read(&out).iter().map(|(name, tensor)| (name.as_str(), tensor))).expect("loaded");
    let output = model.1.forward(&images, None, Some(&noise), false).expect("a forward pass");
    assert_close("from-mae", &output.pred.expect("a prediction"), &given["from-mae.pred"]);
    assert_close("from-mae", &output.loss_image.expect("a loss"), &given["from-mae.loss"]);
}

#[test]
fn a_bert_of_transformers_becomes_the_text_encoder() {
    const TEXTS: [&str; 3] = ["The heart is normal.", "No effusions, NO edema ___", "lungs are clear and normal"];
    let Some(mut python) = torch_python("bert.py") else { return };
    tch::set_num_threads(1);
    let temporary = folder();
    let at = |name: &str| temporary.path().join(name);
    fs::write(at("texts.txt"), TEXTS.join("\n")).expect("written");
    python_output(python.arg(temporary.path()));

    let tokenizer = at("tokenizer.json");
    let mut import = args!["import", at("model"), "--out", at("text.safetensors"), "--preset", "mrm-vit-tiny"].to_vec();
    import.extend(args!["--tokenizer", &tokenizer]);
    let message = ok("trainer", import);
    assert!(
        message.contains("Hugging Face's names translated") && message.contains("a BERT of 28 tokens"),
        "{message}"
    );
    for setting in
        ["vocab_size=28", "embed_dim=128", "num_layers=2", "num_heads=2", "intermediate=96", "max_positions=64"]
    {
        assert!(message.contains(&format!("--set model.bert.{setting}")), "{message}");
    }
    let config = BertConfig {
        vocab_size: 28,
        embed_dim: 128,
        num_layers: 2,
        num_heads: 2,
        intermediate: 96,
        max_positions: 64,
        ..BertConfig::default()
    };
    let store = VarStore::new(Device::Cpu);
    let bert = Bert::new(&(store.root() / "bert_encoder" / "model"), &config);
    let state = read(&at("text.safetensors"));
    let report = load_state(&store, state.iter().map(|(name, t)| (name.as_str(), t))).expect("loaded");
    assert_eq!(report.missing, ["bert_encoder.model.bert.embeddings.position_ids"], "{report}");
    assert!(report.unexpected.is_empty(), "{report}");
    let reader = ReportTokenizer::load(&tokenizer).expect("a tokenizer that ingest takes");
    let pooled = TEXTS.map(|text| {
        let ids: Vec<i64> = reader.token_ids(text, 64).expect("ids").into_iter().map(i64::from).collect();
        assert_eq!(ids[0], 2, "[CLS]");
        let ids = Tensor::from_slice(&ids).unsqueeze(0);
        bert.pooled(&bert.encode(bert.embed(&ids, None, None, false), &ids.ones_like(), false))
    });
    assert_close("pooled", &Tensor::cat(&pooled, 0), &read(&at("given.safetensors"))["pooled"]);

    // With an encoder of images in one file, the initialization of a run on a dataset with this tokenizer.
    write(&perturb(&Model::mrm(&tiny()).0), &at("mrm.safetensors"));
    let mut encoder: State = read(&at("mrm.safetensors"));
    encoder.retain(|name, _| !name.starts_with("bert"));
    write(&encoder, &at("encoder.safetensors"));
    let mut import = args!["import", at("model"), at("encoder.safetensors"), "--out", at("both.safetensors")].to_vec();
    import.extend(args!["--preset", "mrm-vit-tiny", "--tokenizer", &tokenizer]);
    ok("trainer", import);
    let raw = phantom(temporary.path(), 12);
    let run = |name: &str, init: &str, more: &[&str], vocabulary: &str| {
        let data = at(name);
        if !data.exists() {
            ingest("mimic-cxr", &raw, &data, more);
        }
        let run = at(&format!("run-{name}-{init}"));
        let mut all =
            args!["pretrain", "--objective", "clip", "--data", &data, "--run", &run, "--preset", "mrm-vit-tiny"]
                .to_vec();
        all.extend(args!["--init", at(init), "--steps", "1", "--batch-size", "4", "--device", "cpu"]);
        for size in ["embed_dim=128", "num_heads=2", "intermediate=96"] {
            all.extend(args!["--set", format!("model.bert.{size}")]);
        }
        all.extend(args!["--set", vocabulary]);
        ok("trainer", all)
    };
    let tokenizer = tokenizer.to_str().expect("a path");
    let printed = run("theirs", "both.safetensors", &["--tokenizer", tokenizer], "model.bert.vocab_size=28");
    assert!(!printed.contains("the weights know") && !printed.contains("of another shape"), "{printed}");
    let printed = run("ours", "text.safetensors", &[], "model.bert.vocab_size=0");
    assert!(printed.contains("the weights know 28 tokens, this run"), "{printed}");

    // A masked language model, whose decoder is tied.
    ok("trainer", args!["import", at("mlm.pth"), "--out", at("mlm.safetensors"), "--preset", "mrm-vit-tiny"]);
    let mlm = read(&at("mlm.safetensors"));
    let of = |name: &str| &mlm[&format!("bert_encoder.model.{name}")];
    assert_eq!(of("cls.predictions.decoder.weight"), of("bert.embeddings.word_embeddings.weight"));
    let message = fails("trainer", 1, args!["import", at("mlm.pth"), at("model"), "--out", at("x.safetensors")]);
    assert!(message.contains("two tensors would be `bert_encoder.model.bert."), "{message}");
}
