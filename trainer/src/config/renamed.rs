//! Keys that were renamed. `--set` and `--config` name the new key; the stored `config.toml` of an older run is translated,
//! so that the run can still be resumed, evaluated, reported on and used as an initialization.

use toml::{Table, Value};

/// Renamed after configurations began to say their kind.
const LINEAR_PROBE: (&str, &[&str]) = ("optimizer.linear_probe", &["optimizer.freeze_encoder"]);

/// Old key or section, and the new one. Where there are two new ones, the first that the configuration has is meant.
const RENAMED: [(&str, &[&str]); 17] = [
    ("start", &["init_name"]),
    ("optimiser", &["optimizer"]),
    ("optimizer.rule", &["optimizer.kind"]),
    ("optimizer.rate", &["optimizer.lr", "optimizer.base_lr"]),
    ("optimizer.base_rate", &["optimizer.base_lr", "optimizer.lr"]),
    LINEAR_PROBE,
    ("model.restore", &["model.reconstruct"]),
    ("model.frequencies", &["model.pos_embed"]),
    ("model.vit.width", &["model.vit.embed_dim"]),
    ("model.vit.depth", &["model.vit.num_layers"]),
    ("model.vit.heads", &["model.vit.num_heads"]),
    ("model.decoder.width", &["model.decoder.embed_dim"]),
    ("model.decoder.depth", &["model.decoder.num_layers"]),
    ("model.decoder.heads", &["model.decoder.num_heads"]),
    ("model.bert.hidden", &["model.bert.embed_dim"]),
    ("model.bert.layers", &["model.bert.num_layers"]),
    ("model.bert.heads", &["model.bert.num_heads"]),
];

/// The new name of a key, or of a section, that was renamed; none for a key that was not. `keys` are the keys that the
/// configuration has, in full.
pub(super) fn new_name(old: &str, keys: &[String]) -> Option<String> {
    let exists = |name: &str| keys.iter().any(|key| key == name || key.starts_with(&format!("{name}.")));
    if exists(old) {
        return None;
    }
    let mut name = old.to_owned();
    for (from, to) in RENAMED {
        if let Some(rest) = name.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('.')) {
            let to = to.iter().find(|to| exists(&format!("{to}{rest}"))).or(to.first())?;
            name = format!("{to}{rest}");
        }
    }
    (name != old && exists(&name)).then_some(name)
}

/// Translates the configuration of an older version: the names of its keys, the kind that it did not say, and what was a text
/// and is a list. Returns whether anything changed.
pub(super) fn translate(config: &mut Table) -> bool {
    if config.contains_key("kind") {
        let (from, to) = LINEAR_PROBE;
        let Some(value) = take(config, from) else { return false };
        put(config, to[0], value);
        return true;
    }
    let Some(kind) = old_kind(config) else { return false };
    for (from, to) in RENAMED {
        let to = match (from, kind) {
            ("optimizer.rate", "pretrain") | ("optimizer.base_rate", "classify" | "segment") => continue,
            _ => to[0],
        };
        if let Some(value) = take(config, from) {
            put(config, to, value);
        }
    }
    config.insert("kind".to_owned(), kind.into());
    translate_dataset(config);
    if let Some(Value::String(name)) = config.get_mut("init_name") {
        *name = new_init_name(name);
    }
    if kind == "segment" {
        // What is new has the value that the older version computed with.
        put(config, "optimizer.accumulation", 1.into());
    }
    true
}

/// The kind of an older run, by the keys that this kind alone had.
fn old_kind(config: &Table) -> Option<&'static str> {
    if config.contains_key("prediction") {
        return Some("segment");
    }
    if config.contains_key("findings") {
        return Some("classify");
    }
    let is_pretraining = config.get("model").and_then(|model| model.get("decoder")).is_some();
    is_pretraining.then_some("pretrain")
}

/// `"nih, 112120 records, 1f…"` becomes a list; an empty text is removed.
fn translate_dataset(config: &mut Table) {
    let Some(Value::String(text)) = config.get("dataset") else { return };
    let parts: Vec<&str> = text.split(", ").collect();
    let list = match parts.as_slice() {
        [source, records, digest] => records
            .strip_suffix(" records")
            .and_then(|count| count.parse::<i64>().ok())
            .map(|count| Value::Array(vec![(*source).into(), count.into(), (*digest).into()])),
        _ => None,
    };
    match list {
        Some(list) => config.insert("dataset".to_owned(), list),
        None => config.remove("dataset"),
    };
}

/// What tables call an initialization now, by the name that an older version gave it.
fn new_init_name(name: &str) -> String {
    match name.strip_prefix("pre-trained (") {
        Some(rest) => format!("pretrained ({rest}"),
        None if name == "random start" => super::RANDOM_NAME.to_owned(),
        None => name.to_owned(),
    }
}

/// Translates an evaluation of an older version, as its JSON file has it.
pub fn translate_evaluation(evaluation: &mut serde_json::Value) {
    let Some(fields) = evaluation.as_object_mut() else { return };
    for (from, to) in [("start", "init_name"), ("updates", "steps")] {
        if let Some(value) = fields.remove(from) {
            fields.entry(to).or_insert(value);
        }
    }
    if let Some(serde_json::Value::String(name)) = fields.get_mut("init_name") {
        *name = new_init_name(name);
    }
    let old_kind = if fields.contains_key("findings") {
        "classify"
    } else if fields.contains_key("dice") {
        "segment"
    } else {
        return;
    };
    fields.entry("kind").or_insert_with(|| old_kind.into());
}

/// Takes the value of a dotted key out of a table.
fn take(table: &mut Table, key: &str) -> Option<Value> {
    match key.split_once('.') {
        Some((section, key)) => take(table.get_mut(section)?.as_table_mut()?, key),
        None => table.remove(key),
    }
}

/// Sets a dotted key, unless a value that is no section is in the way.
fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        Some((section, key)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, key, value);
            }
        }
        None => {
            table.insert(key.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        ClassifyConfig, ConfigFile, FindingTask, PRESETS, PretrainConfig, RANDOM_NAME, SegmentConfig, classify_preset,
        pretrain_preset, segment_preset,
    };

    /// `[run]` as older versions wrote it.
    const RUN: &str = "[run]\nseed = 3\nlog_every = 20\ncheckpoint_every = 1000\nkeep_last = 2\nprecision = \"fp32\"\n\
                       ema = 0.0\nskip_limit = 10\nthreads = 0\nloader_threads = 0\n";

    fn read<C: serde::Serialize + serde::de::DeserializeOwned>(text: &str, kind: &str) -> C {
        let file = ConfigFile::parse(text, "config.toml").unwrap();
        assert_eq!(file.kind(), kind);
        assert!(file.text().starts_with(&format!("kind = \"{kind}\"\n")), "{}", file.text());
        // What is written now is read again.
        assert_eq!(ConfigFile::parse(file.text(), "config.toml").unwrap().table(), file.table());
        file.read().unwrap()
    }

    #[test]
    fn an_older_pretraining_run_is_read() {
        let old = format!(
            "preset = \"mrm-vit-tiny\"\ndataset = \"mimic-cxr, 78 records, 2fc714a4bdb85100\"\nsplit = \"main\"\n\
             split_members = \"0a087aae467282d9\"\ntokenizer = \"76df836ac50142dc\"\ninit = \"random\"\n\n\
             [model]\nrestore = \"both\"\nsuper_resolution = 2\nmask_ratio = 0.5\nnorm_pix_loss = true\nantialias = false\n\
             frequencies = \"release\"\nimage_weight = 1.0\nreport_weight = 1.0\nreport_loss = \"masked\"\n\n\
             [model.vit]\nimage_size = 64\npatch_size = 8\nwidth = 128\ndepth = 4\nheads = 4\nmlp_ratio = 4.0\n\
             in_channels = 3\n\n[model.decoder]\nwidth = 64\ndepth = 1\nheads = 4\nmlp_ratio = 4.0\n\n\
             [model.bert]\nvocab_size = 888\nhidden = 96\nlayers = 2\nheads = 4\nintermediate = 384\nmax_positions = 64\n\
             type_vocab = 2\ndropout = 0.1\n\n\
             [data]\ntokens = 64\nreport_mask_ratio = 0.8\ncrop_scale = 0.7\nflip = 0.0\nmean = 0.4978\nstd = 0.2449\n\n\
             [optimiser]\nbase_rate = 0.012\nweight_decay = 0.05\nepochs = 200.0\nwarmup_epochs = 40.0\nsteps = 2600\n\
             batch_size = 32\naccumulation = 1\nclip = 1.0\n\n{RUN}"
        );
        let config: PretrainConfig = read(&old, "pretrain");
        let id = config.provenance.dataset.as_ref().unwrap();
        assert_eq!((id.source(), id.to_string().as_str()), ("mimic-cxr", "mimic-cxr, 78 records, 2fc714a4bdb85100"));
        // The older version's preset is that of today.
        let mut now = pretrain_preset("mrm-vit-tiny").unwrap();
        now.model.bert.vocab_size = 888;
        now.run.seed = 3;
        (now.tokenizer, now.provenance) = (config.tokenizer.clone(), config.provenance.clone());
        assert_eq!(config, now);
    }

    #[test]
    fn older_fine_tuning_runs_are_read() {
        let vit = "[model.vit]\nimage_size = 64\npatch_size = 8\nwidth = 128\ndepth = 4\nheads = 4\nmlp_ratio = 4.0\n\
                   in_channels = 3\n";
        let old = format!(
            "preset = \"mrm-vit-tiny\"\ntask = \"labels:Edema\"\ndataset = \"\"\nfindings = [\"Edema\"]\nsplit = \"main\"\n\
             split_members = \"\"\nratio = 10.0\ninit = \"random\"\nstart = \"random start\"\n\n\
             [model]\nclasses = 1\ndrop_path = 0.1\n{vit}[data]\ncrop_scale = 0.7\nflip = 0.0\nmean = 0.4978\nstd = 0.2449\n\
             uncertain = \"zeros\"\nuncertain_by_finding = []\nmissing = \"ignore\"\n\
             [optimizer]\nrule = \"adamw\"\nrate = 0.001\nweight_decay = 0.05\nlayer_decay = 1.0\nlinear_probe = false\n\
             warmup = 25\nsteps = 250\nbatch_size = 32\naccumulation = 1\nclip = 1.0\nevaluate_every = 25\n{RUN}"
        );
        let config: ClassifyConfig = read(&old, "classify");
        assert_eq!((config.keys.init_name.as_str(), &config.keys.provenance.dataset), (RANDOM_NAME, &None));
        let mut now = classify_preset("mrm-vit-tiny", &FindingTask::parse("labels:Edema").unwrap(), 10.0).unwrap();
        (now.run.seed, now.keys) = (3, config.keys.clone());
        assert_eq!(config, now);
        // Runs that say their kind had a linear probe by that name, too.
        let probe = ConfigFile::of("classify", &now).unwrap();
        let probe = probe.text().replacen("freeze_encoder = false", "linear_probe = true", 1);
        assert!(read::<ClassifyConfig>(&probe, "classify").optimizer.encoder.freeze_encoder);

        let old = format!(
            "preset = \"mrm-vit-tiny\"\ntask = \"siim\"\ndataset = \"siim, 60 records, 121c46c082a42464\"\nsplit = \"main\"\n\
             split_members = \"9955\"\nratio = 100.0\ninit = \"runs/mrm\"\nstart = \"pre-trained (mrm)\"\n\n\
             [model]\nhead = \"upernet\"\nblocks = [0, 1, 2, 3]\nchannels = 32\nauxiliary_channels = 32\ndropout = 0.1\n\
             drop_path = 0.1\n{vit}[data]\ncrop_scale = 0.5\nflip = 0.5\nrepeat_positives = 10\nmean = 0.4978\nstd = 0.2449\n\
             [optimiser]\nrate = 0.001\nweight_decay = 0.05\nlayer_decay = 0.9\npower = 1.0\nwarmup = 80\nsteps = 800\n\
             batch_size = 8\nclip = 1.0\nevaluate_every = 100\npatience = 0\n\
             [prediction]\nthreshold = 0.5\nmin_area = 0\nbatch_size = 8\n{RUN}"
        );
        let config: SegmentConfig = read(&old, "segment");
        assert_eq!((config.keys.init_name.as_str(), config.optimizer.schedule.accumulation), ("pretrained (mrm)", 1));
        let mut now = segment_preset("mrm-vit-tiny", "siim", 100.0).unwrap();
        crate::config::FinetuneConfig::complete(&mut now);
        (now.run.seed, now.keys) = (3, config.keys.clone());
        assert_eq!(config, now);
    }

    #[test]
    fn an_older_evaluation_is_translated() {
        let mut old = serde_json::json!({ "findings": [], "start": "random start", "updates": 7 });
        translate_evaluation(&mut old);
        let new = serde_json::json!({ "findings": [], "init_name": RANDOM_NAME, "steps": 7, "kind": "classify" });
        assert_eq!(old, new);
        let mut same = new.clone();
        translate_evaluation(&mut same);
        assert_eq!(same, new);
    }

    /// Figures of the recipes of the paper, which the presets have had since the first version.
    #[test]
    fn presets_have_the_figures_of_the_recipes() {
        let figures = |task: &str, ratio: f64| {
            let config = classify_preset("mrm-vit-b16", &FindingTask::parse(task).unwrap(), ratio).unwrap();
            let schedule = config.optimizer.schedule;
            (schedule.warmup, schedule.steps, schedule.lr, schedule.evaluate_every)
        };
        let all = |task: &str| [1.0, 10.0, 100.0].map(|ratio| figures(task, ratio));
        assert_eq!(all("nih14"), [(50, 3_000, 3e-2, 150), (500, 30_000, 3e-3, 1_500), (5_000, 200_000, 3e-3, 10_000)]);
        let chexpert = [(150, 2_000, 3e-3, 100), (1_500, 60_000, 5e-4, 3_000), (15_000, 200_000, 5e-4, 10_000)];
        assert_eq!(all("chexpert5"), chexpert);
        assert_eq!(all("rsna"), [(50, 2_000, 3e-3, 100), (200, 10_000, 5e-4, 500), (2_000, 50_000, 5e-4, 2_500)]);
        assert_eq!([all("covid"), all("viral")], [[(50, 1_000, 3e-2, 50); 3]; 2]);
        assert_eq!(all("labels:A"), all("nih14"));
        let lengths = [1.0, 10.0, 100.0].map(|ratio| {
            let schedule = segment_preset("mrm-vit-b16", "siim", ratio).unwrap().optimizer.schedule;
            (schedule.warmup, schedule.steps, schedule.lr, schedule.evaluate_every, schedule.batch_size)
        });
        assert_eq!(
            lengths,
            [(1_500, 10_000, 2e-5, 500, 16), (1_500, 10_000, 2e-5, 500, 16), (1_500, 20_000, 2e-5, 1_000, 16)]
        );
        let sizes = PRESETS.map(|preset| {
            let config = pretrain_preset(preset).unwrap();
            let (vit, optimizer) = (config.model.vit, config.optimizer);
            (vit.embed_dim, vit.num_layers, vit.image_size, optimizer.base_lr, optimizer.accumulation, optimizer.steps)
        });
        let expected = [(768, 12, 224, 1.5e-4, 8, 0), (384, 12, 224, 1.5e-4, 8, 0), (128, 4, 64, 1.2e-2, 1, 2_600)];
        assert_eq!(sizes, expected);
    }
}
