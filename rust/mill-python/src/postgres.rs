//! PostgreSQL: tables as sources, sinks and lookups, with the options from Python.
//!
//! A build without PostgreSQL also has the functions, so that the package is the same; they raise an error that says what
//! is missing.

use pyo3::prelude::*;
use pyo3_arrow::PyRecordBatch;

use crate::stream::{RawSink, RawStream};
use crate::types::{PyDataType, RawSchema};

/// Rows that were found: the number of each one's key, the rows, and the keys whose row cannot be read, with why.
pub type Found = (Vec<i64>, Py<PyAny>, Vec<(i64, String)>);

/// Reads a table or a query.
#[pyfunction]
#[pyo3(signature = (url, password, table_or_query, order_by, is_followed))]
pub fn read_postgres(
    py: Python<'_>,
    url: &str,
    password: Option<String>,
    table_or_query: &str,
    order_by: Vec<String>,
    is_followed: bool,
) -> PyResult<RawStream> {
    with_postgres::read(py, url, password, table_or_query, order_by, is_followed)
}

/// Reads the changes of a table.
#[pyfunction]
#[pyo3(signature = (url, password, publication, slot, table, columns, must_exist, only_changes, ends))]
#[expect(clippy::too_many_arguments, reason = "it takes what the Python function takes")]
pub fn read_postgres_changes(
    py: Python<'_>,
    url: &str,
    password: Option<String>,
    publication: &str,
    slot: &str,
    table: Option<String>,
    columns: Option<Vec<String>>,
    must_exist: bool,
    only_changes: bool,
    ends: bool,
) -> PyResult<RawStream> {
    let asked = with_postgres::Changes { password, table, columns, must_exist, only_changes, ends };
    with_postgres::read_changes(py, url, publication, slot, asked)
}

/// Writes a table.
#[pyfunction]
#[pyo3(signature = (stream, url, password, table, key, must_exist, is_two_phase))]
pub fn write_postgres(
    stream: PyRef<'_, RawStream>,
    url: &str,
    password: Option<String>,
    table: &str,
    key: Option<Vec<String>>,
    must_exist: bool,
    is_two_phase: bool,
) -> PyResult<RawSink> {
    with_postgres::write(&stream, url, table, with_postgres::Writing { password, key, must_exist, is_two_phase })
}

/// A table that is asked for the rows of keys.
#[pyclass(frozen, module = "millstream._millstream")]
pub struct RawPostgresTable {
    table: with_postgres::Table,
}

#[pymethods]
impl RawPostgresTable {
    /// Asks which columns the table has.
    #[new]
    #[pyo3(signature = (url, password, table, key, schema, timeout_us))]
    fn new(
        py: Python<'_>,
        url: &str,
        password: Option<String>,
        table: &str,
        key: Vec<String>,
        schema: Option<PyRef<'_, RawSchema>>,
        timeout_us: u64,
    ) -> PyResult<RawPostgresTable> {
        let schema = schema.map(|schema| schema.schema.clone());
        Ok(RawPostgresTable { table: with_postgres::Table::new(py, url, password, table, key, schema, timeout_us)? })
    }

    /// The columns that are found.
    fn schema(&self) -> PyResult<RawSchema> {
        self.table.schema()
    }

    /// The columns of the key.
    fn key(&self) -> PyResult<RawSchema> {
        self.table.key()
    }

    /// The server, without a password.
    fn server(&self) -> String {
        self.table.server()
    }

    /// Refuses columns that cannot have the values of the key.
    fn check_keys(&self, names: Vec<String>, kinds: Vec<PyRef<'_, PyDataType>>) -> PyResult<()> {
        self.table.check_keys(names, kinds.iter().map(|kind| kind.data_type().clone()).collect())
    }

    /// Returns the rows of keys.
    fn find(&self, py: Python<'_>, keys: PyRecordBatch) -> PyResult<Found> {
        self.table.find(py, keys)
    }
}

#[cfg(feature = "postgres")]
mod with_postgres {
    use std::sync::Arc;
    use std::time::Duration;

    use arrow::datatypes::{DataType, SchemaRef};
    use millstream::connectors::{
        PostgresChanges, PostgresLookup, PostgresLookupOptions, PostgresSink, PostgresSource, PostgresSourceOptions,
    };

    use super::*;
    use crate::error::IntoPython;

    pub use millstream::connectors::{PostgresChangesOptions as Changes, PostgresSinkOptions as Writing};

    pub fn read(
        py: Python<'_>,
        url: &str,
        password: Option<String>,
        relation: &str,
        order_by: Vec<String>,
        is_followed: bool,
    ) -> PyResult<RawStream> {
        let options = PostgresSourceOptions { password, order_by, is_followed };
        // The server is asked: others may run meanwhile.
        py.detach(|| PostgresSource::new(url, relation, options)).and_then(RawStream::of).into_python()
    }

    pub fn read_changes(py: Python<'_>, url: &str, publication: &str, slot: &str, asked: Changes) -> PyResult<RawStream> {
        // The server is asked: others may run meanwhile.
        py.detach(|| PostgresChanges::new(url, publication, slot, asked)).and_then(RawStream::of).into_python()
    }

    pub fn write(stream: &RawStream, url: &str, table: &str, options: Writing) -> PyResult<RawSink> {
        let sink = PostgresSink::new(url, table, options).into_python()?;
        Ok(RawSink { node: stream.stream.sink(Arc::new(sink)).into_python()? })
    }

    pub struct Table(PostgresLookup);

    impl Table {
        pub fn new(
            py: Python<'_>,
            url: &str,
            password: Option<String>,
            table: &str,
            key: Vec<String>,
            schema: Option<SchemaRef>,
            timeout_us: u64,
        ) -> PyResult<Table> {
            let options = PostgresLookupOptions { password, key, schema, timeout: Duration::from_micros(timeout_us) };
            py.detach(|| PostgresLookup::new(url, table, options)).map(Table).into_python()
        }

        pub fn schema(&self) -> PyResult<RawSchema> {
            Ok(RawSchema { schema: self.0.schema() })
        }

        pub fn key(&self) -> PyResult<RawSchema> {
            Ok(RawSchema { schema: self.0.key().into_python()? })
        }

        pub fn server(&self) -> String {
            self.0.shown().to_owned()
        }

        pub fn check_keys(&self, names: Vec<String>, kinds: Vec<DataType>) -> PyResult<()> {
            let on: Vec<(String, DataType)> = names.into_iter().zip(kinds).collect();
            self.0.check_keys(&on).into_python()
        }

        pub fn find(&self, py: Python<'_>, keys: PyRecordBatch) -> PyResult<Found> {
            let keys = keys.into_inner();
            let found = py.detach(|| self.0.find(keys.columns())).into_python()?;
            let rows = PyRecordBatch::new(found.rows).into_pyarrow(py)?.unbind();
            Ok((found.numbers.values().to_vec(), rows, found.bad))
        }
    }
}

#[cfg(not(feature = "postgres"))]
mod with_postgres {
    use arrow::datatypes::{DataType, SchemaRef};

    use super::*;
    use crate::error::PlanError;

    fn missing() -> PyErr {
        PlanError::new_err("this build of Millstream has no PostgreSQL: it was made without the feature \"postgres\"")
    }

    pub fn read(_: Python<'_>, _: &str, _: Option<String>, _: &str, _: Vec<String>, _: bool) -> PyResult<RawStream> {
        Err(missing())
    }

    pub struct Changes {
        pub password: Option<String>,
        pub table: Option<String>,
        pub columns: Option<Vec<String>>,
        pub must_exist: bool,
        pub only_changes: bool,
        pub ends: bool,
    }

    pub fn read_changes(_: Python<'_>, _: &str, _: &str, _: &str, _: Changes) -> PyResult<RawStream> {
        Err(missing())
    }

    pub struct Writing {
        pub password: Option<String>,
        pub key: Option<Vec<String>>,
        pub must_exist: bool,
        pub is_two_phase: bool,
    }

    pub fn write(_: &RawStream, _: &str, _: &str, _: Writing) -> PyResult<RawSink> {
        Err(missing())
    }

    pub struct Table;

    impl Table {
        pub fn new(
            _: Python<'_>,
            _: &str,
            _: Option<String>,
            _: &str,
            _: Vec<String>,
            _: Option<SchemaRef>,
            _: u64,
        ) -> PyResult<Table> {
            Err(missing())
        }

        pub fn schema(&self) -> PyResult<RawSchema> {
            Err(missing())
        }

        pub fn key(&self) -> PyResult<RawSchema> {
            Err(missing())
        }

        pub fn server(&self) -> String {
            String::new()
        }

        pub fn check_keys(&self, _: Vec<String>, _: Vec<DataType>) -> PyResult<()> {
            Err(missing())
        }

        pub fn find(&self, _: Python<'_>, _: PyRecordBatch) -> PyResult<Found> {
            Err(missing())
        }
    }
}
