//! `to_changelog` and `from_changelog`: an updating stream as one that only grows, and back.
//!
//! ```text
//!   updating stream        k=1 x=5    k=1 x=7    k=1 withdrawn
//!   changelog              insert 1 5    update 1 7    delete 1 7
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Error, Result};

use super::parts::check_kept;
use super::{Changes, Inputs, Names, Need, Splits, Step, remaining};
use crate::expr::Expr;
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{append_only, check_hashable, check_unique, column_index, in_step, of_key};
use crate::stream::{OutputSpec, Stream};
use crate::types::{is_string, type_name};

/// Names each change of an updating stream.
#[derive(Debug)]
pub(crate) struct ToChangelog {
    key: Vec<String>,
    op: String,
}

/// Takes the named changes of keys as what they are.
#[derive(Debug)]
pub(crate) struct FromChangelog {
    key: Vec<String>,
    op: String,
}

impl Stream {
    /// An updating stream as one that only grows: each change with its kind in a column of this name, which comes first.
    ///
    /// # Errors
    /// When the stream only grows already, has a column of this name, or a column that cannot be kept.
    pub fn to_changelog(&self, op: &str) -> Result<Stream> {
        let schema = self.schema();
        let Some(key) = self.is_updating() else {
            return Err(Error::plan(
                "to_changelog() takes an updating stream, in which the latest row of a key counts, such as that of \
                 key_by(…).agg(…, emit=\"1s\"); this stream is append-only already",
            ));
        };
        if schema.field_with_name(op).is_ok() {
            return Err(Error::plan(format!(
                "to_changelog() adds a column {op:?} and there is one already; choose another name, as in \
                 to_changelog(op=\"change\")"
            )));
        }
        check_kept(&schema).map_err(in_step("to_changelog"))?;
        let mut fields = vec![Arc::new(Field::new(op, DataType::Utf8, false))];
        fields.extend(schema.fields().iter().cloned());
        let changes = Schema::new_with_metadata(fields, schema.metadata().clone());
        let step = ToChangelog { key: key.to_vec(), op: op.to_owned() };
        Stream::add(Arc::new(step), vec![self.clone()], Arc::new(changes), self.facts())
    }

    /// The updating stream of which the records are the changes, with their kind in the column `op`.
    ///
    /// # Errors
    /// When columns do not exist, `op` is no text or part of the key, or a column cannot be a key.
    pub fn from_changelog(&self, key: &[String], op: &str) -> Result<Stream> {
        append_only(self, "from_changelog")?;
        let schema = self.schema();
        let at = column_index(&schema, op).map_err(in_step("from_changelog"))?;
        let found = schema.field(at).data_type();
        let is_text = match found {
            DataType::Dictionary(_, values) => is_string(values),
            other => is_string(other),
        };
        if !is_text {
            return Err(Error::schema(format!(
                "from_changelog() needs a column of text that says \"insert\", \"update\" or \"delete\"; {op:?} is {}",
                type_name(found)
            )));
        }
        if key.is_empty() {
            return Err(Error::plan("from_changelog() needs the key columns whose latest row counts, as in key=\"id\""));
        }
        check_unique(key.iter().cloned(), "from_changelog")?;
        for name in key {
            let field = schema.field(column_index(&schema, name).map_err(in_step("from_changelog"))?);
            check_hashable(field).map_err(in_step("from_changelog"))?;
            if name == op {
                return Err(Error::plan(format!("from_changelog(): {op:?} says what happens, so it cannot be part of the key")));
            }
        }
        let rows = remaining(&schema, |name| name != op);
        let mut facts = self.facts();
        facts.forget(op);
        let step = FromChangelog { key: key.to_vec(), op: op.to_owned() };
        Stream::add(Arc::new(step), vec![self.clone()], rows, facts)
    }
}

impl Step for ToChangelog {
    fn label(&self) -> &'static str {
        "to_changelog"
    }

    fn parameters(&self) -> Parameters {
        parameters([("key", self.key.clone().into()), ("op", self.op.as_str().into())])
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 1] = [OutputSpec::RESULT];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Ends
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn splits(&self) -> Splits {
        Splits::Keys
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(true)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        // A row is a change if any of its columns is another.
        Ok(need.all())
    }

    fn schema(&self, _inputs: &[SchemaRef], declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(declared))
    }

    fn lineage(&self, _inputs: &Inputs<'_>) -> Lineage {
        Lineage::default()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let before = Arc::clone(&input.schema);
        let keys = self.key.iter().map(|key| column_index(&before, key)).collect::<Result<Vec<usize>>>()?;
        let input = builder.exchange_by_key(&input, &keys);
        let row: Vec<String> = before.fields().iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
        let signature = format!("to_changelog({}){}", row.join(", "), of_key(&self.key));
        let schema = Arc::clone(&builder.graph.steps[at].schema);
        let placed = builder.stage(&input, StageKind::ToChangelog { keys }, at, schema, signature)?;
        builder.publish(at, &placed);
        Ok(())
    }
}

impl Step for FromChangelog {
    fn label(&self) -> &'static str {
        "from_changelog"
    }

    fn parameters(&self) -> Parameters {
        parameters([("key", self.key.clone().into()), ("op", self.op.as_str().into())])
    }

    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::ERRORS];
        &OUTPUTS
    }

    fn changes(&self) -> Changes {
        Changes::Makes { key: self.key.clone(), withdraws: true }
    }

    fn is_stateful(&self) -> bool {
        false
    }

    fn splits(&self) -> Splits {
        Splits::Keeps
    }

    fn needs_order(&self, _of_result: bool, _before: &SchemaRef) -> Result<bool> {
        Ok(true)
    }

    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        let mut names = need.columns_and(&self.op);
        names.extend(self.key.iter().cloned());
        Ok(names)
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(remaining(&inputs[0], |name| name != self.op))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        let before = inputs.first();
        Lineage::new(inputs.result.fields().iter().map(|field| {
            let column = Expr::column(field.name());
            (field.name().clone(), before.resolve(&column))
        }))
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let op = column_index(&input.schema, &self.op)?;
        builder.place(at, &input, StageKind::FromChangelog { op }, String::new())
    }
}
