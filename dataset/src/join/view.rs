//! What a dataset shows: its own columns, and over them those of joins. Of two that have the same finding or name, the later one
//! counts.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int8Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use arrow_select::interleave::interleave;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::record_rows::field;
use crate::format::schema::LABELS;
use crate::join::facts::{JoinKind, Unmatched};
use crate::join::stored::Join;

/// The column of where labels are from.
const LABEL_ORIGIN: &str = "label_origin";

/// The joins that a dataset is seen with, and the names that follow.
#[derive(Clone)]
pub(crate) struct View {
    /// Those of the dataset, then those that each join adds.
    pub findings: Vec<String>,
    /// The names of masks, in the same order.
    pub masks: Vec<String>,
    pub joins: Vec<Arc<Join>>,
    /// Number of findings of the dataset itself.
    stored: usize,
}

impl View {
    /// The dataset as it is stored.
    pub fn stored(manifest: &Manifest) -> Self {
        let (findings, masks) = (manifest.labels.clone(), manifest.masks.clone());
        Self { stored: findings.len(), findings, masks, joins: Vec::new() }
    }

    /// With a further join.
    #[must_use]
    pub fn with(mut self, join: Arc<Join>) -> Self {
        let facts = join.facts();
        let known = match facts.kind {
            JoinKind::Labels => Some(&mut self.findings),
            JoinKind::Masks => Some(&mut self.masks),
            JoinKind::Boxes | JoinKind::Texts | JoinKind::Subset => None,
        };
        if let Some(known) = known {
            let new: Vec<String> = facts.names.iter().filter(|name| !known.contains(name)).cloned().collect();
            known.extend(new);
        }
        self.joins.push(join);
        self
    }

    /// Some columns of consecutive records, the first of which has the row `first` of the dataset, with those of the joins.
    ///
    /// # Errors
    /// When a join cannot be read.
    pub fn apply(&self, batch: RecordBatch, first: usize) -> Result<RecordBatch> {
        let mut batch = batch;
        let mut known = self.stored;
        for join in &self.joins {
            let (facts, rows) = (join.facts(), first..first + batch.num_rows());
            let columns: &[&str] = match facts.kind {
                JoinKind::Labels => &[LABELS, LABEL_ORIGIN],
                kind => &[kind.name()],
            };
            let present: Vec<&str> =
                columns.iter().copied().filter(|name| batch.column_by_name(name).is_some()).collect();
            let values = if present.is_empty() { None } else { Some(join.values(rows)?) };
            for name in present {
                let (Some(own), Some(values)) = (batch.column_by_name(name), &values) else { continue };
                let seen = match facts.kind {
                    JoinKind::Labels if name == LABELS => labels(own, values, join, known),
                    JoinKind::Labels => texts(own, values, facts.unmatched, |_| facts.label_origin.as_deref()),
                    JoinKind::Subset => {
                        let joined = values.as_any().downcast_ref::<StringArray>();
                        texts(own, values, facts.unmatched, |row| joined.map(|joined| joined.value(row)))
                    }
                    JoinKind::Boxes | JoinKind::Masks | JoinKind::Texts => items(own, values, join),
                };
                let failed =
                    |error: ArrowError| Error::Join { name: join.name().to_owned(), message: error.to_string() };
                batch = replaced(&batch, name, seen.map_err(failed)?).map_err(failed)?;
            }
            if facts.kind == JoinKind::Labels {
                known = self.known_after(known, join);
            }
        }
        Ok(batch)
    }

    /// Number of findings after a join of labels, of which `known` were there before.
    fn known_after(&self, known: usize, join: &Join) -> usize {
        let before = &self.findings[..known.min(self.findings.len())];
        known + join.facts().names.iter().filter(|name| !before.contains(name)).count()
    }
}

/// A batch with another column of a name.
fn replaced(batch: &RecordBatch, name: &str, column: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let at = schema.index_of(name)?;
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields[at] = Arc::new(Field::new(name, column.data_type().clone(), schema.field(at).is_nullable()));
    let mut columns = batch.columns().to_vec();
    columns[at] = column;
    RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())), columns)
}

fn unexpected(kind: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("{kind} is not the type of the format"))
}

fn of_type<T: 'static>(array: &dyn Array) -> Result<&T, ArrowError> {
    array.as_any().downcast_ref::<T>().ok_or_else(|| unexpected(array.data_type()))
}

/// The labels of a dataset, `known` findings, with those of a join: a finding that both have is that of the join.
fn labels(own: &ArrayRef, values: &ArrayRef, join: &Join, known: usize) -> Result<ArrayRef, ArrowError> {
    let (own, joined) = (of_type::<StructArray>(own)?, of_type::<StructArray>(values)?);
    let keep = join.facts().unmatched == Unmatched::Keep;
    let codes = |structs: &StructArray, at: usize| of_type::<Int8Array>(structs.column(at)).cloned();
    // A dataset without findings has one field that means nothing.
    let mut fields: Vec<_> = own.fields().iter().take(known).cloned().collect();
    let mut columns: Vec<Int8Array> = (0..fields.len()).map(|at| codes(own, at)).collect::<Result<_, _>>()?;
    for (at, name) in join.facts().names.iter().enumerate() {
        let new = codes(joined, at)?;
        let place = fields.iter().position(|known| known.name() == name);
        let old = place.map(|place| columns[place].clone());
        let code = |row: usize| {
            if joined.is_valid(row) {
                return new.is_valid(row).then(|| new.value(row));
            }
            let old = old.as_ref().filter(|old| keep && old.is_valid(row));
            old.map(|old| old.value(row))
        };
        let seen: Int8Array = (0..joined.len()).map(code).collect();
        if let Some(place) = place {
            columns[place] = seen;
        } else {
            fields.push(Arc::new(Field::new(name, DataType::Int8, true)));
            columns.push(seen);
        }
    }
    let columns = columns.into_iter().map(|codes| Arc::new(codes) as ArrayRef).collect();
    Ok(Arc::new(StructArray::try_new(Fields::from(fields), columns, None)?))
}

/// A column of texts with those of a join, which `joined` has.
fn texts<'a>(
    own: &ArrayRef,
    values: &ArrayRef,
    unmatched: Unmatched,
    joined: impl Fn(usize) -> Option<&'a str>,
) -> Result<ArrayRef, ArrowError> {
    let own = of_type::<StringArray>(own)?;
    let text = |row: usize| {
        if values.is_valid(row) {
            return joined(row).map(str::to_owned);
        }
        (unmatched == Unmatched::Keep && own.is_valid(row)).then(|| own.value(row).to_owned())
    };
    Ok(Arc::new((0..values.len()).map(text).collect::<StringArray>()))
}

/// Lists of a dataset with those of a join. Where items have names, those of other names stay.
fn items(own: &ArrayRef, values: &ArrayRef, join: &Join) -> Result<ArrayRef, ArrowError> {
    let (own, joined) = (of_type::<ListArray>(own)?, of_type::<ListArray>(values)?);
    let (own_items, joined_items) = (of_type::<StructArray>(own.values())?, of_type::<StructArray>(joined.values())?);
    let facts = join.facts();
    let name = |items: &StructArray, at: usize| {
        field::<StringArray>(items, "name").map(|names| names.value(at).to_owned()).unwrap_or_default()
    };
    let is_named = facts.kind != JoinKind::Boxes;
    let range = |lists: &ListArray, row: usize| {
        let offsets = lists.value_offsets();
        if lists.is_valid(row) { offsets[row] as usize..offsets[row + 1] as usize } else { 0..0 }
    };
    let (mut chosen, mut lengths) = (Vec::new(), Vec::with_capacity(own.len()));
    for row in 0..own.len() {
        let before = chosen.len();
        let keeps_all = !joined.is_valid(row) && facts.unmatched == Unmatched::Keep;
        let stays = |at: &usize| keeps_all || (is_named && !facts.names.contains(&name(own_items, *at)));
        chosen.extend(range(own, row).filter(stays).map(|at| (0, at)));
        chosen.extend(range(joined, row).map(|at| (1, at)));
        lengths.push(chosen.len() - before);
    }
    let DataType::List(item) = own.data_type() else { return Err(unexpected(own.data_type())) };
    if own_items.data_type() != joined_items.data_type() {
        return Err(unexpected(joined_items.data_type()));
    }
    let values = if chosen.is_empty() {
        arrow_array::new_empty_array(own_items.data_type())
    } else {
        interleave(&[own_items as &dyn Array, joined_items], &chosen)?
    };
    Ok(Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), values, None)?))
}
