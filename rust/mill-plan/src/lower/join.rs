//! What every join needs of the chains: both inputs by the hash of their own keys.
//!
//! ```text
//!   left  ─► (project) ═hash(its key)═══► entry 0 ┐
//!                                                  ├─► stage with two inputs
//!   right ─► (project) ═hash(its key)═══► entry 1 ┘
//! ```
//!
//! Keys that are no columns of their side, or have another type there, are computed before the exchange, as columns after
//! those of the side.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_protocol::Result;

use super::chains::{Builder, Place};
use super::keyed::{rename, schema_of};
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::physical::StageKind;
use crate::steps::{JoinKeys, Names};
use crate::stream::checks::{column_index, of_key};
use crate::types::type_name;

/// Both inputs of a join, in one chain.
pub(crate) struct JoinInputs {
    /// Where each of them comes in.
    pub(crate) places: [Place; 2],
    /// The key columns of each.
    pub(crate) keys: [Vec<usize>; 2],
    /// The columns that each had of its own; computed keys come after them.
    pub(crate) before: [SchemaRef; 2],
    /// What of the key must stay the same, for signatures.
    pub(crate) described: String,
}

impl Builder<'_> {
    /// Brings the inputs of a join together by their keys.
    pub(crate) fn join_inputs(&mut self, at: usize, keys: &JoinKeys) -> Result<JoinInputs> {
        self.join_moving_inputs(at, keys, [None, None])
    }

    /// The same of updating streams whose rows, by these keys, may get another join key: each is withdrawn from the one it had.
    pub(crate) fn join_moving_inputs(
        &mut self,
        at: usize,
        keys: &JoinKeys,
        moving: [Option<&[String]>; 2],
    ) -> Result<JoinInputs> {
        let lineage = &self.graph.steps[at].lineage;
        // Which stream is which: the path of the step does not depend on the order of its inputs.
        let of = |side: usize| self.graph.path_of(self.graph.steps[at].inputs[side]);
        let described = format!("{}; {}, {}", keys.described(|expr| lineage.resolve(expr)), of(0), of(1));
        let (left, left_keys, left_before) = self.with_key(at, 0, keys, moving[0])?;
        let (right, right_keys, right_before) = self.with_key(at, 1, keys, moving[1])?;
        let places = self.exchange_two([&left, &right], [&left_keys, &right_keys]);
        Ok(JoinInputs { places, keys: [left_keys, right_keys], before: [left_before, right_before], described })
    }

    /// The changes of an updating input, in which a row that gets another join key is withdrawn first.
    fn latest_rows(&mut self, at: usize, side: usize, keys: &JoinKeys, key: &[String]) -> Result<Place> {
        let input = self.input(at, side)?;
        let schema = Arc::clone(&input.schema);
        let mut read = Names::new();
        keys.add_columns(side, &mut read);
        let own = key.iter().map(|name| column_index(&schema, name)).collect::<Result<Vec<usize>>>()?;
        let by = read.iter().map(|name| column_index(&schema, name)).collect::<Result<Vec<usize>>>()?;
        let row: Vec<String> = schema.fields().iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
        let signature = format!("latest rows({}){}", row.join(", "), of_key(key));
        let input = self.exchange_by_key(&input, &own);
        let placed = self.stage(&input, StageKind::LatestRows { keys: own, by }, at, Arc::clone(&schema), signature)?;
        let (uid, name) = (self.graph.steps[at].uid.clone(), self.graph.steps[at].name.clone());
        rename(self, &placed, &uid, &name, ["left rows", "right rows"][side]);
        Ok(placed.port(0, schema))
    }

    /// An input with the columns of its key.
    fn with_key(
        &mut self,
        at: usize,
        side: usize,
        keys: &JoinKeys,
        moving: Option<&[String]>,
    ) -> Result<(Place, Vec<usize>, SchemaRef)> {
        let input = match moving {
            Some(key) => self.latest_rows(at, side, keys, key)?,
            None => self.input(at, side)?,
        };
        let before = Arc::clone(&input.schema);
        let mut exprs: Vec<Expr> = before.fields().iter().map(|field| Expr::column(field.name())).collect();
        let own = exprs.len();
        let mut places = Vec::new();
        for key in keys.of_side(side, &before) {
            places.push(match key {
                Ok(place) => place,
                Err(expr) => {
                    exprs.push(expr.alias(format!("__key{}", exprs.len())));
                    exprs.len() - 1
                }
            });
        }
        if exprs.len() == own {
            return Ok((input, places, before));
        }
        let compiled = exprs.iter().map(|expr| CompiledExpr::new(expr, &before)).collect::<Result<Vec<_>>>()?;
        let schema = schema_of(&compiled);
        let (uid, name) = (self.graph.steps[at].uid.clone(), self.graph.steps[at].name.clone());
        let kind = StageKind::Project { exprs: compiled };
        let placed = self.stage(&input, kind, at, Arc::clone(&schema), String::new())?;
        rename(self, &placed, &uid, &name, ["left", "right"][side]);
        self.publish_errors(at, &placed);
        Ok((placed.port(0, schema), places, before))
    }
}
