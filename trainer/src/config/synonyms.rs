//! Suggests a key for an unknown one: the key for the word of another library, or the one with the nearest spelling.

use dataset::name_suggestion::did_you_mean;

/// Words of other libraries, and the names of the keys with that meaning, the best one first. For a word whose keys this
/// configuration lacks nothing is suggested, since the nearest spelling would be a wrong key.
const SYNONYMS: [(&str, &[&str]); 25] = [
    ("lr learning_rate rate base_lr base_rate blr max_lr peak_lr init_lr initial_lr", &["lr", "base_lr"]),
    (
        "bs batch batches batchsize micro_batch micro_batch_size per_device_train_batch_size train_batch_size",
        &["batch_size"],
    ),
    ("wd decay l2 weightdecay", &["weight_decay"]),
    ("epoch n_epochs num_epochs max_epochs num_train_epochs", &["epochs", "steps"]),
    ("epochs iterations iters max_iters max_steps num_steps total_steps train_steps updates", &["steps"]),
    ("dropout_rate drop_rate attention_dropout hidden_dropout_prob", &["dropout", "drop_path"]),
    ("dropout drop_path_rate stochastic_depth", &["drop_path"]),
    ("random_seed manual_seed rng_seed random_state", &["seed"]),
    ("workers num_workers n_workers threads num_threads cpu_workers", &["loader_threads"]),
    ("optimizer optimiser optim opt algorithm rule", &["kind"]),
    ("lr_schedule lr_scheduler scheduler schedule momentum beta1 beta2 betas eps", &["power"]),
    ("grad_clip clip_grad clip_norm max_norm max_grad_norm gradient_clipping gradient_clip_val", &["clip"]),
    (
        "grad_accum accum accum_iter accum_steps accumulate_grad_batches gradient_accumulation \
         gradient_accumulation_steps accumulation_steps",
        &["accumulation"],
    ),
    ("warmup_steps warmup_iters num_warmup_steps warmup_epochs warmup_ratio", &["warmup", "warmup_epochs"]),
    ("eval_every eval_steps eval_interval val_every val_interval validate_every", &["evaluate_every"]),
    ("log_interval log_steps logging_steps log_freq print_freq", &["log_every"]),
    ("save_every save_steps save_interval save_freq checkpoint_interval", &["checkpoint_every"]),
    ("save_total_limit max_to_keep keep", &["keep_last"]),
    ("amp dtype fp16 bf16 fp32 half mixed_precision autocast", &["precision"]),
    ("ema_decay model_ema ema_rate", &["ema"]),
    ("img_size input_size image_resolution resolution imsize", &["image_size"]),
    ("width hidden hidden_size hidden_dim dim", &["embed_dim"]),
    ("depth layers n_layers num_hidden_layers", &["num_layers"]),
    ("heads n_heads num_attention_heads", &["num_heads"]),
    ("masking_ratio mask_prob mlm_probability mlm_prob", &["mask_ratio", "report_mask_ratio"]),
];

/// `; did you mean KEY?` for an unknown key; empty if no key is near. `keys` are the full names of all keys.
pub(super) fn did_you_mean_key(wanted: &str, keys: &[String]) -> String {
    let name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_lowercase().replace('-', "_");
    let word = name(wanted);
    // A key of this very name in another section is the first choice.
    let exact = keys.iter().find(|key| name(key) == word);
    let meanings = SYNONYMS.iter().filter(|(words, _)| words.split_whitespace().any(|other| other == word));
    let known = meanings.clone().next().is_some();
    let meant = meanings.flat_map(|(_, names)| *names).find_map(|meant| keys.iter().find(|key| name(key) == *meant));
    match exact.or(meant) {
        Some(key) => format!("; did you mean `{key}`?"),
        None if known => String::new(),
        None => {
            let sections = keys.iter().filter_map(|key| Some(key.rsplit_once('.')?.0));
            did_you_mean(wanted, keys.iter().map(String::as_str).chain(sections))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::did_you_mean_key;
    use crate::config::{FindingTask, classify_preset, keys, pretrain_preset, segment_preset};

    fn all<C: serde::Serialize>(config: &C) -> Vec<String> {
        keys(&toml::Table::try_from(config).unwrap(), "").into_iter().filter(|key| key.contains('.')).collect()
    }

    fn meant(wanted: &str, keys: &[String]) -> String {
        let message = did_you_mean_key(wanted, keys);
        message.trim_start_matches("; did you mean `").trim_end_matches("`?").to_owned()
    }

    #[test]
    fn words_of_other_libraries_find_the_key() {
        let classify = all(&classify_preset("mrm-vit-b16", &FindingTask::parse("nih14").unwrap(), 1.0).unwrap());
        let pretrain = all(&pretrain_preset("mrm-vit-b16").unwrap());
        let segment = all(&segment_preset("mrm-vit-b16", "siim", 100.0).unwrap());
        for word in ["lr", "learning_rate", "Learning-Rate", "rate", "optimizer.learning_rate", "train.blr"] {
            assert_eq!(meant(word, &classify), "optimizer.lr", "{word}");
            assert_eq!(meant(word, &pretrain), "optimizer.base_lr", "{word}");
            assert_eq!(meant(word, &segment), "optimizer.lr", "{word}");
        }
        for (word, of_classify, of_pretrain) in [
            ("bs", "optimizer.batch_size", "optimizer.batch_size"),
            ("batch", "optimizer.batch_size", "optimizer.batch_size"),
            ("optimizer.batch_size", "optimizer.batch_size", "optimizer.batch_size"),
            ("wd", "optimizer.weight_decay", "optimizer.weight_decay"),
            ("optimizer.weight_decay", "optimizer.weight_decay", "optimizer.weight_decay"),
            ("num_epochs", "optimizer.steps", "optimizer.epochs"),
            ("max_steps", "optimizer.steps", "optimizer.steps"),
            ("dropout", "model.drop_path", "model.bert.dropout"),
            ("seed", "run.seed", "run.seed"),
            ("random_seed", "run.seed", "run.seed"),
            ("workers", "run.loader_threads", "run.loader_threads"),
            ("num_workers", "run.loader_threads", "run.loader_threads"),
            ("warmup_steps", "optimizer.warmup", "optimizer.warmup_epochs"),
            ("amp", "run.precision", "run.precision"),
            ("optimizer", "optimizer.kind", ""),
            ("hidden_size", "model.vit.embed_dim", "model.bert.embed_dim"),
            // There is one schedule, and no key for it.
            ("lr_schedule", "", ""),
        ] {
            assert_eq!([meant(word, &classify), meant(word, &pretrain)], [of_classify, of_pretrain], "{word}");
        }
        assert_eq!(meant("lr_schedule", &segment), "optimizer.power");
        assert_eq!(meant("model.dropot", &segment), "model.dropout");
    }
}
