//! Aggregates: what `agg(...)` computes, the types of its results, and the partial states that travel between tasks.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use mill_protocol::{Error, Result};

use crate::expr::Expr;
use crate::function::AggregateFunction;
use crate::steps::parts::is_kept;
use crate::stream::checks::untold_apart;
use crate::types::type_name;

/// An aggregate of an expression, over the rows for which a filter holds.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// What is computed.
    pub kind: AggregateKind,
    /// Of what; absent for the number of rows.
    pub input: Option<Box<Expr>>,
    /// Over which rows; all if absent.
    pub filter: Option<Box<Expr>>,
}

impl AggregateCall {
    /// The name of the resulting column without an alias.
    pub fn output_name(&self) -> String {
        match &self.input {
            Some(input) => input.output_name(),
            None => self.kind.name(),
        }
    }
}

/// What an aggregate computes. Nulls are skipped by all but `First`, `Last` and `Collect`, which keep them.
#[derive(Clone, Debug)]
pub enum AggregateKind {
    /// The number of rows, or of values that are not null if there is an input.
    Count,
    /// The sum; null of no value.
    Sum,
    /// The mean.
    Mean,
    /// The smallest value.
    Min,
    /// The largest value; NaN is larger than all numbers.
    Max,
    /// The first value in the order of the input.
    First,
    /// The last value in the order of the input.
    Last,
    /// How many different values there are; null counts as one, as does NaN.
    NUnique,
    /// The same, by a sketch of fixed size.
    ApproxNUnique,
    /// The standard deviation of a sample.
    Std,
    /// The variance of a sample.
    Var,
    /// The quantile, exact, with linear interpolation.
    Quantile(f64),
    /// The quantile by a sketch of bounded size.
    ApproxQuantile(f64),
    /// The quantile 0.5, exact.
    Median,
    /// All values as a list, in the order of the input.
    Collect,
    /// The product; null of no value.
    Product,
    /// The second field of the struct whose first field is smallest; of several, the smallest second field. Structs without a
    /// first field are skipped.
    MinBy,
    /// The same where the first field is largest; of several, the largest second field.
    MaxBy,
    /// A user's aggregate.
    User(Arc<dyn AggregateFunction>),
}

impl AggregateKind {
    /// The name users know it by.
    pub fn name(&self) -> String {
        match self {
            AggregateKind::Count => "count",
            AggregateKind::Sum => "sum",
            AggregateKind::Mean => "mean",
            AggregateKind::Min => "min",
            AggregateKind::Max => "max",
            AggregateKind::First => "first",
            AggregateKind::Last => "last",
            AggregateKind::NUnique => "n_unique",
            AggregateKind::ApproxNUnique => "approx_n_unique",
            AggregateKind::Std => "std",
            AggregateKind::Var => "var",
            AggregateKind::Quantile(_) => "quantile",
            AggregateKind::ApproxQuantile(_) => "approx_quantile",
            AggregateKind::Median => "median",
            AggregateKind::Collect => "collect",
            AggregateKind::Product => "product",
            AggregateKind::MinBy => "min_by",
            AggregateKind::MaxBy => "max_by",
            AggregateKind::User(function) => return function.name(),
        }
        .to_owned()
    }

    /// Whether partial results of fixed size can be made before the exchange and merged after it.
    pub fn is_mergeable(&self) -> bool {
        use AggregateKind::{Count, Max, Mean, Min, Std, Sum, Var};
        matches!(self, Count | Sum | Mean | Min | Max | Std | Var)
    }

    /// Whether partial results can be made before the exchange whose size grows with the values, up to a bound.
    pub fn is_sketch(&self) -> bool {
        matches!(self, AggregateKind::ApproxNUnique | AggregateKind::ApproxQuantile(_))
    }

    /// Whether what it keeps of a key does not grow with the records of the key.
    pub fn is_of_fixed_size(&self) -> bool {
        match self {
            AggregateKind::Count
            | AggregateKind::Sum
            | AggregateKind::Mean
            | AggregateKind::Min
            | AggregateKind::Max
            | AggregateKind::First
            | AggregateKind::Last
            | AggregateKind::Std
            | AggregateKind::Var
            | AggregateKind::ApproxNUnique
            | AggregateKind::ApproxQuantile(_)
            | AggregateKind::Product
            | AggregateKind::MinBy
            | AggregateKind::MaxBy
            | AggregateKind::User(_) => true,
            AggregateKind::NUnique | AggregateKind::Quantile(_) | AggregateKind::Median | AggregateKind::Collect => false,
        }
    }

    /// Whether the result depends on the order of the records.
    pub fn is_ordered(&self) -> bool {
        matches!(self, AggregateKind::First | AggregateKind::Last | AggregateKind::Collect)
    }

    /// The type to which the input is converted before it is aggregated.
    ///
    /// # Errors
    /// When the aggregate does not take this type.
    pub fn input_type(&self, input: &DataType) -> Result<DataType> {
        use DataType::{Boolean, Decimal128, Duration, Float64, Int64, Timestamp, UInt64};
        let refused = |needed: &str| {
            Err(Error::schema(format!("{}() needs {needed}, found {}", self.name(), type_name(input))))
        };
        Ok(match self {
            AggregateKind::Sum if matches!(input, DataType::Decimal256(..)) => {
                return Err(Error::schema(format!(
                    "sum() adds decimals of up to 38 digits, found {}; cast it, as in cast(mill.Decimal(38, 2))",
                    type_name(input)
                )));
            }
            AggregateKind::Sum => match input {
                Boolean | DataType::Null => Int64,
                t if t.is_signed_integer() => Int64,
                t if t.is_unsigned_integer() => UInt64,
                t if t.is_floating() => Float64,
                Decimal128(..) | Duration(_) => input.clone(),
                _ => return refused("a number, boolean, decimal or duration"),
            },
            // Numbers that floats do not hold are aggregated as what they are, and the result is rounded.
            AggregateKind::Mean
            | AggregateKind::Std
            | AggregateKind::Var
            | AggregateKind::Quantile(_)
            | AggregateKind::ApproxQuantile(_)
            | AggregateKind::Median => match input {
                Boolean | DataType::Null => Float64,
                t if t.is_signed_integer() => Int64,
                t if t.is_unsigned_integer() => UInt64,
                Decimal128(..) => input.clone(),
                t if t.is_numeric() => Float64,
                // A variance has the square of a unit, and a share of the time since 1970 means nothing.
                Duration(_) if !matches!(self, AggregateKind::Var) => input.clone(),
                Timestamp(..) if matches!(self, AggregateKind::Mean | AggregateKind::Quantile(_) | AggregateKind::Median) => {
                    input.clone()
                }
                _ => return refused(match self {
                    AggregateKind::Var => "a number",
                    AggregateKind::Std | AggregateKind::ApproxQuantile(_) => "a number or duration",
                    _ => "a number, duration or timestamp",
                }),
            },
            AggregateKind::Min | AggregateKind::Max => {
                let plain = plain_type(input);
                if plain.is_nested() {
                    return refused("values with an order (numbers, strings, times)");
                }
                plain
            }
            AggregateKind::Product => match input {
                Boolean | DataType::Null => Int64,
                t if t.is_signed_integer() => Int64,
                t if t.is_unsigned_integer() => UInt64,
                t if t.is_floating() => Float64,
                _ => return refused("integers, floats or booleans; cast it to float"),
            },
            AggregateKind::MinBy | AggregateKind::MaxBy => {
                let DataType::Struct(fields) = input else { return refused("a struct of two fields") };
                let [by, value] = [&fields[0], &fields[1]].map(|field| plain_type(field.data_type()));
                if by.is_nested() {
                    return Err(Error::schema(format!(
                        "{}() needs values with an order (numbers, strings, times) to go by, found {}",
                        self.name(),
                        type_name(&by)
                    )));
                }
                if !is_kept(&value) || !is_kept(&by) {
                    return Err(Error::schema(format!(
                        "{}() keeps values as state, which {} cannot be; cast it to another type before",
                        self.name(),
                        type_name(&value)
                    )));
                }
                let fields = vec![Field::new(fields[0].name(), by, true), Field::new(fields[1].name(), value, true)];
                DataType::Struct(fields.into())
            }
            AggregateKind::NUnique | AggregateKind::ApproxNUnique => match untold_apart(input) {
                Some(_) => return refused("values that are told apart, as keys are; take them out, or cast them to str"),
                None => plain_type(input),
            },
            AggregateKind::User(_) => input.clone(),
            AggregateKind::First | AggregateKind::Last | AggregateKind::Collect => {
                let plain = plain_type(input);
                if !is_kept(&plain) {
                    return Err(Error::schema(format!(
                        "{}() keeps values as state, which {} cannot be; cast it to another type before",
                        self.name(),
                        type_name(input)
                    )));
                }
                plain
            }
            AggregateKind::Count => plain_type(input),
        })
    }

    /// The type of the result over input of the type that [`input_type`](AggregateKind::input_type) returned.
    ///
    /// # Errors
    /// When a user's aggregate does not take this type.
    pub fn output_type(&self, input: Option<&DataType>) -> Result<DataType> {
        let of_input = || input.cloned().unwrap_or(DataType::Null);
        Ok(match self {
            AggregateKind::Count | AggregateKind::NUnique | AggregateKind::ApproxNUnique => DataType::Int64,
            AggregateKind::Mean
            | AggregateKind::Std
            | AggregateKind::Var
            | AggregateKind::Quantile(_)
            | AggregateKind::ApproxQuantile(_)
            | AggregateKind::Median => match of_input() {
                time @ (DataType::Duration(_) | DataType::Timestamp(..)) => time,
                _ => DataType::Float64,
            },
            AggregateKind::Sum => match of_input() {
                DataType::Decimal128(_, scale) => DataType::Decimal128(38, scale),
                other => other,
            },
            AggregateKind::Min | AggregateKind::Max | AggregateKind::First | AggregateKind::Last => of_input(),
            AggregateKind::Collect => DataType::new_list(of_input(), true),
            AggregateKind::Product => of_input(),
            AggregateKind::MinBy | AggregateKind::MaxBy => match of_input() {
                DataType::Struct(fields) => fields[1].data_type().clone(),
                other => other,
            },
            AggregateKind::User(function) => function.return_type(&of_input())?,
        })
    }
}

/// The type without its ways of saving space: strings and binaries with 32-bit offsets, no dictionary.
pub(crate) fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        other => other.clone(),
    }
}

/// An aggregate as a stage computes it: its input is a column that a stage before it has computed.
#[derive(Clone, Debug)]
pub struct AggregateSpec {
    /// What is computed.
    pub kind: AggregateKind,
    /// The column of the stage's input, of type `input_type`. In a stage that merges partial results: the first of the
    /// columns that [`partial_fields`](AggregateSpec::partial_fields) describes.
    pub input: Option<usize>,
    /// A boolean column: only rows for which it is true count. Always absent in a stage that merges partial results.
    pub filter: Option<usize>,
    /// Whether an aggregate of the order of records follows event time where its windows do not say so: one of all records.
    pub by_time: bool,
    /// The name of the resulting column.
    pub name: String,
    /// The type of the values that are aggregated.
    pub input_type: Option<DataType>,
    /// The type of the result.
    pub output_type: DataType,
}

impl AggregateSpec {
    /// The resulting column.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.output_type.clone(), true)
    }

    /// The columns in which a partial result travels; empty if the aggregate cannot be merged.
    pub fn partial_fields(&self) -> Vec<Field> {
        let field = |part: &str, data_type: DataType| Field::new(format!("{}:{part}", self.name), data_type, true);
        // A sum of floats travels with what rounding has lost, so that the total does not depend on the order.
        let float_sum =
            |part: &str| [field(part, DataType::Float64), field(&format!("{part}_lost"), DataType::Float64)];
        match &self.kind {
            AggregateKind::Count => vec![field("n", DataType::Int64)],
            AggregateKind::Sum if self.output_type == DataType::Float64 => float_sum("sum").into(),
            AggregateKind::Sum => vec![field("sum", self.output_type.clone())],
            AggregateKind::Mean => [vec![field("n", DataType::Int64)], float_sum("sum").into()].concat(),
            AggregateKind::Min | AggregateKind::Max => vec![field("value", self.output_type.clone())],
            AggregateKind::Std | AggregateKind::Var => {
                [vec![field("n", DataType::Int64)], float_sum("sum").into(), float_sum("squares").into()].concat()
            }
            AggregateKind::ApproxNUnique | AggregateKind::ApproxQuantile(_) => vec![field("sketch", DataType::Binary)],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for AggregateSpec {
    /// Writes what must stay the same for state to be usable: name, kind and type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.kind.name())?;
        if let AggregateKind::Quantile(q) | AggregateKind::ApproxQuantile(q) = &self.kind {
            write!(f, "[{q}]")?;
        }
        match &self.input_type {
            Some(input) => write!(f, "({})", type_name(input))?,
            None => f.write_str("()")?,
        }
        if matches!(self.kind, AggregateKind::Var | AggregateKind::Std) {
            // The rows keep squared distances from the mean; before, they kept squares.
            f.write_str(" about the mean")?;
        }
        if self.filter.is_some() { f.write_str(".filter") } else { Ok(()) }
    }
}
