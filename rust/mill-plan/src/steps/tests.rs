use arrow::datatypes::{DataType, Field};
use mill_protocol::{ErrorKind, SourceProperties, Split, SplitReader};

use super::*;
use crate::lower::PlanOptions;
use crate::physical::StageKind;
use crate::stream::{Content, Facts, Stream};

#[derive(Debug)]
struct Numbers(SchemaRef);

impl Source for Numbers {
    fn name(&self) -> String {
        "numbers()".to_owned()
    }
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: true, is_replayable: true, discovers_splits: false, may_block: false }
    }
    fn splits(&self, _: bool) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }
    fn open(&self, _: &Split, _: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        Err(mill_protocol::Error::internal("never opened"))
    }
    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        Some(Arc::new(Numbers(self.0.project(columns).ok()?.into())))
    }
}

fn numbers() -> Stream {
    let column = |name: &str| Field::new(name, DataType::Int64, true);
    Stream::source(Arc::new(Numbers(Arc::new(Schema::new(vec![column("a"), column("b")])))))
}

/// A step that no pass knows: two outputs of its own, and whatever stage and claims a test wants.
#[derive(Debug)]
struct Foreign {
    kind: StageKind,
    signature: &'static str,
    is_stateful: bool,
    changes: Changes,
}

impl Step for Foreign {
    fn label(&self) -> &'static str {
        "foreign"
    }
    fn parameters(&self) -> Parameters {
        Parameters::new()
    }
    fn outputs(&self) -> &[OutputSpec] {
        static OUTPUTS: [OutputSpec; 3] =
            [OutputSpec::RESULT, OutputSpec::new("odd", Content::Result), OutputSpec::new("unread", Content::Input(0))];
        &OUTPUTS
    }
    fn changes(&self) -> Changes {
        self.changes.clone()
    }
    fn is_stateful(&self) -> bool {
        self.is_stateful
    }
    fn splits(&self) -> Splits {
        Splits::Keeps
    }
    fn needs_order(&self, of_result: bool, _: &SchemaRef) -> Result<bool> {
        Ok(of_result)
    }
    fn needs(&self, need: &Need<'_>) -> Result<Names> {
        Ok(need.columns_and("a"))
    }
    fn schema(&self, inputs: &[SchemaRef], _: &SchemaRef) -> Result<SchemaRef> {
        Ok(Arc::clone(&inputs[0]))
    }
    fn lineage(&self, inputs: &Inputs<'_>) -> Lineage {
        inputs.first()
    }
    fn lower(&self, builder: &mut Builder<'_>, at: usize) -> Result<()> {
        let input = builder.input(at, 0)?;
        builder.place(at, &input, self.kind.clone(), self.signature.to_owned())
    }
}

fn added(step: Foreign) -> Result<Stream> {
    let input = numbers();
    let (schema, facts) = (input.schema(), input.facts());
    Stream::add(Arc::new(step), vec![input], schema, facts)
}

fn stateless(kind: StageKind) -> Foreign {
    Foreign { kind, signature: "", is_stateful: false, changes: Changes::Refuses }
}

#[test]
fn a_step_of_one_file_has_outputs_ports_and_identities_like_any_other() {
    let result = added(stateless(StageKind::Pass)).unwrap();
    let outputs = [result.clone(), result.side("odd").unwrap(), result.side("unread").unwrap()];
    let sinks: Vec<_> = outputs.iter().map(|stream| preview(stream).unwrap()).collect();
    let plan = crate::lower::lower(&sinks, &PlanOptions::default()).unwrap();
    let stages = &plan.chains[0].stages;
    let foreign = stages.iter().find(|stage| stage.name == "foreign").unwrap();
    assert_eq!(foreign.outputs, ["result", "odd", "unread"]);
    let uids: Vec<&str> = stages.iter().map(|stage| stage.uid.as_str()).filter(|uid| uid.ends_with("collect")).collect();
    assert_eq!(uids, ["numbers/collect", "numbers/odd/collect", "numbers/unread/collect"]);
    let ports: Vec<&str> = foreign
        .ports
        .iter()
        .map(|targets| match targets.as_slice() {
            [crate::physical::Target::Stage(index, _)] => stages[*index].uid.as_str(),
            other => panic!("one target a port, found {other:?}"),
        })
        .collect();
    assert_eq!(ports, uids);
    assert!(plan.explain().contains("odd: collect"), "{}", plan.explain());
    assert!(result.errors().is_err() && result.late().is_err(), "it lists neither");
}

#[test]
fn input_records_keep_all_columns_where_someone_takes_them() {
    let result = added(stateless(StageKind::Pass)).unwrap();
    let narrow = result.select(vec![Expr::column("a")]).unwrap();
    let read = |sinks: &[SinkNode]| {
        let plan = crate::lower::lower(sinks, &PlanOptions::default()).unwrap();
        plan.chains[0].source.as_ref().unwrap().source.schema().fields().len()
    };
    assert_eq!(read(&[preview(&narrow).unwrap()]), 1);
    assert_eq!(read(&[preview(&narrow).unwrap(), preview(&result.side("unread").unwrap()).unwrap()]), 2);
}

#[test]
fn state_that_a_step_does_not_declare_is_refused() {
    let lowered = |step: Foreign| added(step).unwrap().explain(&PlanOptions::default());
    let refused = lowered(stateless(StageKind::Limit(1))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Internal);
    assert!(refused.message().contains("foreign has a stage with state and declares none"), "{refused}");
    let unsigned = Foreign { is_stateful: true, ..stateless(StageKind::Limit(1)) };
    let refused = lowered(unsigned).unwrap_err();
    assert!(refused.message().contains("a stage of foreign has state and no signature"), "{refused}");
    let signed = Foreign { is_stateful: true, signature: "limit(1)", ..stateless(StageKind::Limit(1)) };
    assert!(lowered(signed).is_ok());
}

#[test]
fn whether_updates_pass_is_checked_for_every_step() {
    let makes = Foreign { changes: Changes::Makes { key: vec!["a".to_owned()], withdraws: false }, ..stateless(StageKind::Pass) };
    let updating = added(makes).unwrap();
    assert_eq!(updating.is_updating(), Some(["a".to_owned()].as_slice()));
    let after = |changes: Changes| {
        let step = Foreign { changes, ..stateless(StageKind::Pass) };
        Stream::add(Arc::new(step), vec![updating.clone()], updating.schema(), updating.facts())
    };
    assert_eq!(after(Changes::Passes).unwrap().is_updating(), updating.is_updating());
    let refused = after(Changes::Refuses).unwrap_err();
    assert!(refused.message().starts_with("foreign() does not take an updating stream"), "{refused}");
    let facts = Facts { is_bounded: true, event_time: None, updating: Some(vec!["a".to_owned()]), withdraws: false };
    let input = numbers();
    let schema = input.schema();
    let grows = Stream::add(Arc::new(stateless(StageKind::Pass)), vec![input], schema, facts).unwrap();
    assert_eq!(grows.is_updating(), None, "what a step refuses it does not make");
}
