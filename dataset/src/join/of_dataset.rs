//! A dataset with joins.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::join::stored::{Join, known_joins};
use crate::join::view::View;

impl Dataset {
    /// Names of the joins that are stored in the dataset; none where the storage cannot be listed.
    ///
    /// # Errors
    /// When listing fails.
    pub fn joins(&self) -> Result<Vec<String>> {
        known_joins(self.storage())
    }

    /// Opens a join of the dataset.
    ///
    /// # Errors
    /// When it is missing or damaged, or was made for other shards than the dataset's.
    pub fn join(&self, name: &str) -> Result<Join> {
        Join::load(self.storage(), self.manifest(), name)
    }

    /// The dataset as it is with joins: their findings, labels, boxes, masks, texts and subsets replace its own in everything
    /// that is read of it, by [`Dataset::record`], [`Dataset::columns`] and loaders. A later join replaces values of an earlier
    /// one.
    ///
    /// # Errors
    /// As [`Dataset::join`]; also where a name is given twice.
    pub fn with_joins<S: AsRef<str>>(self, names: &[S]) -> Result<Self> {
        let view = self.view_with(self.view().clone(), names)?;
        Ok(self.seen(view))
    }

    /// As [`Dataset::with_joins`], of a dataset that is shared: it is opened again.
    ///
    /// # Errors
    /// As [`Dataset::with_joins`].
    pub fn joined<S: AsRef<str>>(&self, names: &[S]) -> Result<Self> {
        let view = self.view_with(self.view().clone(), names)?;
        Ok(self.reopened()?.seen(view))
    }

    /// The columns, with the types that joins give them.
    ///
    /// # Errors
    /// When a join has columns of other types.
    pub fn schema(&self) -> Result<SchemaRef> {
        let stored = RecordBatch::new_empty(Arc::new(self.manifest().schema()));
        Ok(self.view().apply(stored, 0)?.schema())
    }

    /// Names of the joins that the dataset is seen with.
    pub fn joined_names(&self) -> Vec<String> {
        self.view().joins.iter().map(|join| join.name().to_owned()).collect()
    }

    /// The dataset as it is stored, with the labels of one join where a name is given.
    pub(crate) fn labels_view(&self, join: Option<&str>) -> Result<View> {
        let names: Vec<&str> = join.into_iter().collect();
        let view = self.view_with(View::stored(self.manifest()), &names)?;
        if let (Some(name), true) = (join, view.joins.iter().any(|join| !join.has_labels())) {
            let message = "it has no labels: give a join that was made with `--as labels`".to_owned();
            return Err(Error::Join { name: name.to_owned(), message });
        }
        Ok(view)
    }

    fn view_with<S: AsRef<str>>(&self, view: View, names: &[S]) -> Result<View> {
        names.iter().try_fold(view, |view, name| {
            let name = name.as_ref();
            if view.joins.iter().any(|join| join.name() == name) {
                return Err(Error::Join { name: name.to_owned(), message: "it is given twice".to_owned() });
            }
            Ok(view.with(Arc::new(self.join(name)?)))
        })
    }
}
