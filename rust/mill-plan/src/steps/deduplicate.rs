//! `key_by(…).deduplicate()`: the first row of each key, or the first within a time.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Result};

use super::{Changes, Inputs, Names, Need, Splits, Step};
use crate::logical::{Parameters, parameters};
use crate::lower::{Builder, Lineage};
use crate::physical::StageKind;
use crate::stream::checks::{append_only, column_index};
use crate::stream::{KeyedStream, OutputSpec, Stream, duration};

/// Lets one row of each key pass.
#[derive(Debug)]
pub(crate) struct Deduplicate {
    keys: Vec<String>,
    within_us: Option<i64>,
}

impl KeyedStream {
    /// The rows of each key that come first: at all, or of those whose event times are less than `within_us` apart.
    ///
    /// # Errors
    /// When the time is not positive, or the stream has no event time and one is given.
    pub fn deduplicate(&self, within_us: Option<i64>) -> Result<Stream> {
        append_only(&self.stream, "deduplicate")?;
        if let Some(us) = within_us {
            if us <= 0 {
                return Err(Error::plan(format!(
                    "deduplicate(): within must be a positive duration, found {}",
                    duration(us)
                )));
            }
            if !self.stream.has_event_time() {
                return Err(Error::plan(
                    "deduplicate(within=…) needs event time: call event_time(\"column\", watermark=\"5s\") before key_by()",
                ));
            }
        }
        let step = Deduplicate { keys: self.keys.clone(), within_us };
        Stream::add(Arc::new(step), vec![self.stream.clone()], self.stream.schema(), self.stream.facts())
    }
}

impl Step for Deduplicate {
    fn label(&self) -> &'static str {
        "deduplicate"
    }

    fn parameters(&self) -> Parameters {
        parameters([("keys", self.keys.clone().into()), ("within", self.within_us.map(duration).into())])
    }

    fn outputs(&self) -> &[OutputSpec] {
        static FOREVER: [OutputSpec; 1] = [OutputSpec::RESULT];
        static WITHIN: [OutputSpec; 2] = [OutputSpec::RESULT, OutputSpec::LATE];
        if self.within_us.is_some() { &WITHIN } else { &FOREVER }
    }

    fn changes(&self) -> Changes {
        Changes::Refuses
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
        let mut names = need.columns.clone();
        names.extend(self.keys.iter().cloned());
        Ok(names)
    }

    fn schema(&self, inputs: &[SchemaRef], _declared: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }

    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }

    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        let schema = Arc::clone(&input.schema);
        let keys = self.keys.iter().map(|key| column_index(&schema, key)).collect::<Result<Vec<usize>>>()?;
        let input = builder.exchange_by_key(&input, &keys);
        let mut signature = format!("key({}) deduplicate", builder.described_keys(at, &schema, &self.keys)?);
        if let Some(us) = self.within_us {
            signature = format!("{signature} within {}", duration(us));
        }
        let kind = StageKind::Deduplicate { keys, within_us: self.within_us };
        let placed = builder.stage(&input, kind, at, Arc::clone(&schema), signature)?;
        builder.publish_with_input(at, &placed, &schema);
        Ok(())
    }
}
