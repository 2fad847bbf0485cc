//! Keys that were renamed. `--set` and `--config` name the new key; the stored `config.toml` of an older run is translated,
//! so that the run can still be resumed, evaluated, reported on and used as an initialization.

use toml::{Table, Value};

/// Old key or section, and the new one. Where there are two new ones, the first that the configuration has is meant.
const RENAMED: [(&str, &[&str]); 16] = [
    ("start", &["init_name"]),
    ("optimiser", &["optimizer"]),
    ("optimizer.rule", &["optimizer.kind"]),
    ("optimizer.rate", &["optimizer.lr", "optimizer.base_lr"]),
    ("optimizer.base_rate", &["optimizer.base_lr", "optimizer.lr"]),
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
        return false;
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
        [source, records, digest] => records.strip_suffix(" records").and_then(|count| count.parse::<i64>().ok()).map(
            |count| Value::Array(vec![(*source).into(), count.into(), (*digest).into()]),
        ),
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
