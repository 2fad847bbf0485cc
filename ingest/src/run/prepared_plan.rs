//! A plan that is ready to be ingested: sorted, checked and cut to the limit, with the arguments that the manifest stores.

use std::path::Path;

use dataset::progress::OnProgress;
use dataset::store::files;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::reject::Stage;
use crate::run::changed_options::Arguments;
use crate::run::check_sums::CheckSums;
use crate::run::keys::{INPUT, NOTED};
use crate::run::options::{Options, PixelBits, TokenizerChoice};
use crate::run::plan::Plan;
use crate::run::preview;

/// A plan that is ready to be ingested.
pub struct PreparedPlan {
    pub plan: Plan,
    /// The arguments that the manifest stores.
    pub arguments: Arguments,
    /// [`crate::run::Summary::uncounted_rejects`].
    pub uncounted_rejects: u64,
}

/// The files that `--check-sums` names, as one digest; null without any.
fn lists(options: &Options) -> Result<serde_json::Value> {
    let digests = options.check_sums.iter().map(|path| files::sha256(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(match digests.as_slice() {
        [] => serde_json::Value::Null,
        [one] => one.as_str().into(),
        several => files::hex(&Sha256::digest(several.concat())).into(),
    })
}

impl PreparedPlan {
    /// Sorts and checks a plan. Tables are compared with their checksums.
    ///
    /// # Errors
    /// When it has no records, a record has another number of labels than there are findings, the tokenizer's file cannot
    /// be used, or a table is damaged; or `progress` cancels.
    pub fn of(
        source: &str,
        raw: &Path,
        mut plan: Plan,
        options: &Options,
        sums: &CheckSums,
        progress: &OnProgress,
    ) -> Result<Self> {
        if plan.records.is_empty() {
            return Err(preview::empty(source, raw, &plan));
        }
        options.check()?;
        plan.finalize();
        plan.check()?;
        sums.check_tables(&mut plan, progress)?;
        let mut uncounted_rejects = 0;
        if let Some(limit) = options.limit.filter(|limit| *limit < plan.records.len()) {
            plan.records.truncate(limit);
            // The rejects are those of the whole set, the records a part of it.
            uncounted_rejects = plan.rejects.iter().filter(|reject| reject.stage != Stage::Report).count() as u64;
        }
        let mut arguments = arguments(source, options)?;
        arguments.extend(std::mem::take(&mut plan.arguments));
        arguments.insert(INPUT.to_owned(), plan.sha256().into());
        if plan.path_names.hashed {
            arguments.insert("hash_paths".to_owned(), true.into());
        }
        if !plan.noted_options.is_empty() {
            arguments.insert(NOTED.to_owned(), std::mem::take(&mut plan.noted_options).into_iter().collect());
        }
        Ok(Self { plan, arguments, uncounted_rejects })
    }
}

/// The arguments that all sources share and that decide the bytes, as the manifest stores them.
pub fn arguments(source: &str, options: &Options) -> Result<Arguments> {
    let tokenizer = match &options.tokenizer {
        TokenizerChoice::None => serde_json::Value::Null,
        TokenizerChoice::Train(vocabulary) => format!("train {vocabulary}").into(),
        TokenizerChoice::File(path) => files::sha256(path)?.into(),
    };
    let mut arguments = Arguments::from([
        ("source".to_owned(), source.into()),
        ("size".to_owned(), options.size.into()),
        ("resize".to_owned(), options.resize.name().into()),
        ("image_encoding".to_owned(), options.encoding.name().into()),
        ("compression".to_owned(), options.compression.name().into()),
        ("intensity".to_owned(), options.intensity.name().into()),
        ("tokenizer".to_owned(), tokenizer),
        ("max_tokens".to_owned(), options.max_tokens.into()),
        ("report_text".to_owned(), options.report_text.name().into()),
        ("source_digest".to_owned(), options.source_digest.name().into()),
        ("check_sums".to_owned(), lists(options)?),
        ("reject_constant".to_owned(), options.reject_constant.into()),
        ("reject_burned_in".to_owned(), options.reject_burned_in.into()),
        ("rows_per_shard".to_owned(), options.rows_per_shard.into()),
        ("no_images".to_owned(), options.no_images.into()),
        ("limit".to_owned(), options.limit.map_or(serde_json::Value::Null, Into::into)),
    ]);
    // Datasets of 8 bits keep the arguments that they had before there were others.
    if options.bits == PixelBits::Sixteen {
        arguments.insert("bits".to_owned(), options.stored_encoding().bits().into());
    }
    Ok(arguments)
}
