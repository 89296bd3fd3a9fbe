//! The options of all readers of files.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_frame::types::type_name;
use mill_protocol::{Error, Result, Source};

use super::placed::PlacedSource;
use crate::nearest::{did_you_mean, quoted};

/// How files are read, whatever is in them.
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    /// Whether to continue with new and growing files, without end.
    pub follow: bool,
    /// The columns that are read, all if it is `None`.
    pub columns: Option<Vec<String>>,
    /// Whether the directories in a directory are looked into.
    pub recursive: bool,
    /// The column that gets the path of the file.
    pub include_file_paths: Option<String>,
    /// The column that gets the number of the row in its file, and the number of the first row.
    pub row_index: Option<(String, i64)>,
    /// Whether directories `key=value` are columns.
    pub hive_partitioning: bool,
    /// The types of these columns; of one that is not in it, the type is inferred.
    pub hive_schema: Option<SchemaRef>,
    /// Whether a column that a file does not have is null in its records.
    pub insert_missing_columns: bool,
}

impl FileOptions {
    /// The options that are not as they are by default, as Python spells them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: String| write!(text, ", {name}={value}").expect("a string takes all");
        if let Some(columns) = &self.columns {
            add("columns", format!("{columns:?}"));
        }
        if self.recursive {
            add("recursive", "True".to_owned());
        }
        if let Some(column) = &self.include_file_paths {
            add("include_file_paths", format!("{column:?}"));
        }
        if let Some((column, first)) = &self.row_index {
            add("row_index_name", format!("{column:?}"));
            if *first != 0 {
                add("row_index_offset", first.to_string());
            }
        }
        if self.hive_partitioning {
            add("hive_partitioning", "True".to_owned());
        }
        if let Some(schema) = &self.hive_schema {
            let columns: Vec<String> =
                schema.fields().iter().map(|field| format!("{:?}: {}", field.name(), type_name(field.data_type()))).collect();
            add("hive_schema", format!("{{{}}}", columns.join(", ")));
        }
        if self.insert_missing_columns {
            add("missing_columns", "\"insert\"".to_owned());
        }
        if self.follow {
            add("follow", "True".to_owned());
        }
        text
    }

    /// Refuses options that contradict each other.
    pub(crate) fn check(&self, reader: &str) -> Result<()> {
        if self.row_index.is_some() && self.follow {
            return Err(Error::plan(format!(
                "{reader}: row_index_name numbers the rows of files that end, and a followed file may be written anew; leave out \
                 one of row_index_name and follow"
            )));
        }
        if self.hive_schema.is_some() && !self.hive_partitioning {
            return Err(Error::plan(format!("{reader}: hive_schema has a meaning with hive_partitioning=True only")));
        }
        Ok(())
    }

    /// Refuses options that are about files, for standard input.
    pub(super) fn check_pipe(&self, reader: &str) -> Result<()> {
        let set = [
            ("recursive", self.recursive),
            ("include_file_paths", self.include_file_paths.is_some()),
            ("row_index_name", self.row_index.is_some()),
            ("hive_partitioning", self.hive_partitioning),
        ];
        match set.iter().find(|(_, is_set)| *is_set) {
            None => Ok(()),
            Some((option, _)) => {
                Err(Error::plan(format!("{reader}(\"-\"): {option} is about files, and standard input is none; leave it out")))
            }
        }
    }

    /// Refuses columns that were named and that no file has; `names` are those that files have.
    pub(super) fn check_chosen(&self, source: &str, names: &[String]) -> Result<()> {
        let is_added = |name: &String| {
            self.include_file_paths.as_ref() == Some(name) || self.row_index.as_ref().is_some_and(|(index, _)| index == name)
        };
        // Which keys partitions have, the paths of the files say.
        let unknown = self.columns.iter().flatten().find(|name| !self.hive_partitioning && !is_added(name) && !names.contains(name));
        match unknown {
            None => Ok(()),
            Some(name) => Err(no_column(source, name, &names.iter().map(String::as_str).collect::<Vec<_>>())),
        }
    }

    /// The source as these options want it; `files` are those that there are now.
    ///
    /// # Errors
    /// When a column is named that it does not have, or one is named twice; when partitions are not those of all files.
    pub(super) fn apply(&self, source: Arc<dyn Source>, files: &[PathBuf]) -> Result<Arc<dyn Source>> {
        let is_placed = self.include_file_paths.is_some() || self.row_index.is_some() || self.hive_partitioning;
        let source = if is_placed { Arc::new(PlacedSource::new(source, files, self)?) } else { source };
        let Some(columns) = &self.columns else { return Ok(source) };
        let schema = source.schema();
        let mut places: Vec<usize> = Vec::with_capacity(columns.len());
        for name in columns {
            let Ok(place) = schema.index_of(name) else {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(no_column(&source.name(), name, &names));
            };
            if places.contains(&place) {
                return Err(Error::plan(format!("{}: columns names {name:?} twice", source.name())));
            }
            places.push(place);
        }
        if places.is_empty() {
            return Err(Error::plan(format!("{}: columns names no column", source.name())));
        }
        // What options of their own ask for need not be named again.
        if let Some((name, _)) = &self.row_index
            && let Ok(place) = schema.index_of(name)
            && !places.contains(&place)
        {
            places.insert(0, place);
        }
        if let Some(name) = &self.include_file_paths
            && let Ok(place) = schema.index_of(name)
            && !places.contains(&place)
        {
            places.push(place);
        }
        source.project(&places).ok_or_else(|| Error::internal("a source of files can leave out columns"))
    }
}

fn no_column(source: &str, name: &str, names: &[&str]) -> Error {
    let near = did_you_mean(name, names.iter().copied());
    Error::schema(format!("{source}: columns names {name:?}, and there is no such column{near} (there are {})", quoted(names, ", ")))
}
