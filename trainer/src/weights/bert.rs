//! BERT of Hugging Face as text encoder: names of its tensors, sizes, and the order of its tokens.
//!
//! Our names are those of transformers' `BertForMaskedLM` under `bert_encoder.model.`. `BertModel` has the same ones without
//! `bert.`; files that were converted from TensorFlow call the parameters of norms `gamma` and `beta`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use dataset::tokenizer::SPECIAL;
use serde_json::{Value, json};
use tch::Tensor;

use crate::model::bert::BertConfig;
use crate::weights::load::Tensors;

/// What our names begin with.
const OURS: &str = "bert_encoder.model.";

/// The embedding of tokens, without prefixes: a name that every BERT has.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// Width of an attention head of every published BERT.
const HEAD: i64 = 64;

/// Names whose rows are tokens.
const BY_TOKEN: [&str; 4] = [
    "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
    "cls.predictions.bias",
];

/// Whether these are the names of Hugging Face's BERT.
pub fn is_hugging_face<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| bare(name) == WORDS)
}

/// Hugging Face's tensors under our names; others keep theirs. A head whose decoder is tied to the token embedding, and so not
/// stored, gets a copy of it.
pub fn from_hugging_face(tensors: Tensors) -> Tensors {
    let mut all: Tensors =
        tensors.into_iter().map(|(name, tensor)| (translate(&name).unwrap_or(name), tensor)).collect();
    let get = |all: &Tensors, name: &str| {
        all.iter().find(|(other, _)| other.strip_prefix(OURS) == Some(name)).map(|(_, tensor)| tensor.shallow_clone())
    };
    let [words, decoder, decoder_bias, bias] = BY_TOKEN.map(|name| get(&all, name));
    if let (Some(words), None, true) = (words, &decoder, bias.is_some() || decoder_bias.is_some()) {
        all.push((format!("{OURS}{}", BY_TOKEN[1]), words.copy()));
    }
    for (missing, name, other) in [(&decoder_bias, BY_TOKEN[2], &bias), (&bias, BY_TOKEN[3], &decoder_bias)] {
        if let (None, Some(other)) = (missing, other) {
            all.push((format!("{OURS}{name}"), other.copy()));
        }
    }
    all
}

/// The sizes of a BERT under our names; none where there is none. The number of heads is not in the weights: it is that of heads
/// of 64 values, or 1.
pub fn sizes(tensors: &Tensors) -> Option<BertConfig> {
    let shape = |name: &str| {
        let found = tensors.iter().find(|(other, _)| other.strip_prefix(OURS) == Some(name));
        found.map(|(_, tensor)| tensor.size()).filter(|shape| shape.len() == 2)
    };
    let words = shape(BY_TOKEN[0])?;
    let layers = tensors.iter().filter_map(|(name, _)| {
        name.strip_prefix(OURS)?.strip_prefix("bert.encoder.layer.")?.split('.').next()?.parse::<i64>().ok()
    });
    Some(BertConfig {
        vocab_size: words[0],
        embed_dim: words[1],
        num_layers: layers.collect::<BTreeSet<i64>>().len() as i64,
        num_heads: if words[1] % HEAD == 0 { words[1] / HEAD } else { 1 },
        intermediate: shape("bert.encoder.layer.0.intermediate.dense.weight")?[0],
        max_positions: shape("bert.embeddings.position_embeddings.weight")?[0],
        type_vocab: shape("bert.embeddings.token_type_embeddings.weight")?[0],
        ..BertConfig::default()
    })
}

/// The content of a `tokenizer.json` with the special tokens of [`SPECIAL`] at their ids, and for each new id the former one.
/// Tokens that were at these ids take the places that the special ones leave.
///
/// # Errors
/// When it is no WordPiece tokenizer, or lacks a special token.
pub fn reordered_tokenizer(text: &str) -> Result<(String, Vec<i64>)> {
    let mut tokenizer: Value = serde_json::from_str(text).context("not JSON")?;
    ensure!(tokenizer["model"]["type"] == "WordPiece", "no WordPiece tokenizer, which a BERT has");
    let vocabulary = tokenizer["model"]["vocab"].as_object().context("no vocabulary")?;
    let added = tokenizer["added_tokens"].as_array().cloned().unwrap_or_default();
    let mut tokens: Vec<Option<String>> = Vec::new();
    let of_added = added.iter().filter_map(|token| Some((token["content"].as_str()?, token["id"].as_u64()?)));
    let ids = vocabulary.iter().filter_map(|(token, id)| Some((token.as_str(), id.as_u64()?)));
    for (token, id) in ids.chain(of_added) {
        let id = usize::try_from(id).ok().filter(|id| *id < 1 << 24).context("an id that no vocabulary has")?;
        tokens.resize(tokens.len().max(id + 1), None);
        tokens[id] = Some(token.to_owned());
    }
    let mut order: Vec<i64> = (0..tokens.len() as i64).collect();
    for (wanted, special) in SPECIAL.iter().enumerate() {
        let Some(at) = tokens.iter().position(|token| token.as_deref() == Some(special)) else {
            bail!("no token {special}");
        };
        tokens.swap(wanted, at);
        order.swap(wanted, at);
    }
    let new_id = |token: &str| tokens.iter().position(|other| other.as_deref() == Some(token));
    let mut by_id = serde_json::Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if let Some(token) = token.as_ref().filter(|token| vocabulary.contains_key(*token)) {
            by_id.insert(token.clone(), json!(id));
        }
    }
    let moved = added.into_iter().map(|mut token| {
        let id = token["content"].as_str().and_then(&new_id);
        token["id"] = json!(id);
        token
    });
    let mut moved: Vec<Value> = moved.collect();
    moved.sort_by_key(|token| token["id"].as_u64());
    tokenizer["added_tokens"] = Value::Array(moved);
    tokenizer["model"]["vocab"] = Value::Object(by_id);
    // It adds [CLS] and [SEP] by their former ids. Ours puts [CLS] before the text itself.
    tokenizer["post_processor"] = Value::Null;
    Ok((serde_json::to_string(&tokenizer)?, order))
}

/// Reorders the rows of tokens of a BERT under our names.
///
/// # Errors
/// When the tokenizer has more tokens than the weights.
pub fn reorder_tokens(tensors: &mut Tensors, order: &[i64]) -> Result<()> {
    for (name, tensor) in tensors {
        if !name.strip_prefix(OURS).is_some_and(|name| BY_TOKEN.contains(&name)) {
            continue;
        }
        let rows = tensor.size()[0];
        ensure!(
            rows >= order.len() as i64,
            "the tokenizer has {} tokens, {name} {rows}: it is of other weights",
            order.len()
        );
        // Rows beyond the tokenizer stay: they pad the table of some models.
        let all: Vec<i64> = order.iter().copied().chain(order.len() as i64..rows).collect();
        *tensor = tensor.f_index_select(0, &Tensor::from_slice(&all))?;
    }
    Ok(())
}

fn bare(name: &str) -> &str {
    name.strip_prefix("bert.").unwrap_or(name)
}

/// Our name of a tensor of Hugging Face's BERT.
fn translate(name: &str) -> Option<String> {
    let inner = bare(name);
    let is_part = ["embeddings.", "encoder.layer.", "pooler."].iter().any(|start| inner.starts_with(start));
    let named = match (is_part, name.starts_with("cls.predictions.")) {
        (true, _) => format!("{OURS}bert.{inner}"),
        (_, true) => format!("{OURS}{name}"),
        _ => return None,
    };
    let ends = [(".gamma", ".weight"), (".beta", ".bias")];
    let renamed = ends.iter().find_map(|(old, new)| Some(format!("{}{new}", named.strip_suffix(old)?)));
    Some(renamed.unwrap_or(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_kinds_of_files_are_known() {
        let ours = |name: &str| translate(name).unwrap_or_default();
        let words = "bert_encoder.model.bert.embeddings.word_embeddings.weight";
        assert_eq!(ours("embeddings.word_embeddings.weight"), words);
        assert_eq!(ours("bert.embeddings.word_embeddings.weight"), words);
        assert_eq!(ours("bert.embeddings.LayerNorm.gamma"), "bert_encoder.model.bert.embeddings.LayerNorm.weight");
        assert_eq!(
            ours("cls.predictions.transform.LayerNorm.beta"),
            "bert_encoder.model.cls.predictions.transform.LayerNorm.bias"
        );
        assert_eq!([ours("cls.seq_relationship.weight"), ours("blocks.0.norm1.weight"), ours(words)], [""; 3]);
        assert!(is_hugging_face(["pooler.dense.bias", "bert.embeddings.word_embeddings.weight"].into_iter()));
        assert!(!is_hugging_face([words, "encoder.layer.0.output.dense.bias"].into_iter()));
    }

    #[test]
    fn special_tokens_move_to_their_ids_and_rows_with_them() {
        let text = r###"{"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "heart": 1, "[MASK]": 2, "lung": 3, "[UNK]": 4,
            "[CLS]": 5, "##s": 6}}, "added_tokens": [{"id": 5, "content": "[CLS]"}, {"id": 0, "content": "[PAD]"}],
            "post_processor": {"type": "TemplateProcessing"}}"###;
        let (text, order) = reordered_tokenizer(text).unwrap();
        let tokenizer: Value = serde_json::from_str(&text).unwrap();
        let id = |token: &str| tokenizer["model"]["vocab"][token].as_u64().unwrap();
        assert_eq!(["[PAD]", "[UNK]", "[CLS]", "[MASK]"].map(id), [0, 1, 2, 3]);
        assert_eq!(tokenizer["added_tokens"][1], json!({"id": 2, "content": "[CLS]"}));
        assert!(tokenizer["post_processor"].is_null());
        let former = [
            ("[PAD]", 0.0),
            ("heart", 1.0),
            ("[MASK]", 2.0),
            ("lung", 3.0),
            ("[UNK]", 4.0),
            ("[CLS]", 5.0),
            ("##s", 6.0),
        ];
        // Two rows that pad the table.
        let rows = Tensor::from_slice(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).view([9, 1]);
        let other = Tensor::from_slice(&[1.0]);
        let mut tensors = vec![(format!("{OURS}{}", BY_TOKEN[0]), rows), ("cls_token".to_owned(), other.copy())];
        reorder_tokens(&mut tensors, &order).unwrap();
        let moved = Vec::<f64>::try_from(tensors[0].1.squeeze_dim(1)).unwrap();
        for (token, row) in former {
            assert_eq!(moved[id(token) as usize], row, "{token}");
        }
        assert_eq!(moved[7..], [7.0, 8.0]);
        assert_eq!(tensors[1].1, other);
        assert!(reorder_tokens(&mut tensors, &[0; 10]).unwrap_err().to_string().contains("of other weights"));
        assert!(reordered_tokenizer(r#"{"model": {"type": "BPE"}}"#).unwrap_err().to_string().contains("WordPiece"));
    }

    #[test]
    fn a_tied_decoder_is_a_copy_of_the_embedding() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, tch::kind::FLOAT_CPU);
        let theirs = vec![
            ("bert.embeddings.word_embeddings.weight".to_owned(), Tensor::ones([30, 128], tch::kind::FLOAT_CPU)),
            ("bert.embeddings.position_embeddings.weight".to_owned(), zeros(&[10, 128])),
            ("bert.embeddings.token_type_embeddings.weight".to_owned(), zeros(&[2, 128])),
            ("bert.encoder.layer.0.intermediate.dense.weight".to_owned(), zeros(&[256, 128])),
            ("bert.encoder.layer.1.intermediate.dense.weight".to_owned(), zeros(&[256, 128])),
            ("cls.predictions.bias".to_owned(), zeros(&[30])),
        ];
        let ours = from_hugging_face(theirs);
        let shape =
            |name: &str| ours.iter().find(|(other, _)| other == &format!("{OURS}{name}")).map(|(_, t)| t.size());
        assert_eq!(shape("cls.predictions.decoder.weight"), Some(vec![30, 128]));
        assert_eq!(shape("cls.predictions.decoder.bias"), Some(vec![30]));
        let sizes = sizes(&ours).unwrap();
        assert_eq!((sizes.vocab_size, sizes.embed_dim, sizes.num_layers, sizes.num_heads), (30, 128, 2, 2));
        assert_eq!((sizes.intermediate, sizes.max_positions, sizes.type_vocab), (256, 10, 2));
        assert_eq!(super::sizes(&Vec::new()), None);
    }
}
