//! MySQL and MariaDB: tables as sources and sinks, with the options from Python.
//!
//! A build without them also has the functions, so that the package is the same; they raise an error that says what is missing.

use pyo3::prelude::*;

use crate::stream::{RawSink, RawStream};

/// Reads a table or a query.
#[pyfunction]
#[pyo3(signature = (url, password, table_or_query, order_by))]
pub fn read_mysql(
    py: Python<'_>,
    url: &str,
    password: Option<String>,
    table_or_query: &str,
    order_by: Vec<String>,
) -> PyResult<RawStream> {
    with_mysql::read(py, url, password, table_or_query, order_by)
}

/// Writes a table.
#[pyfunction]
#[pyo3(signature = (stream, url, password, table, key, must_exist))]
pub fn write_mysql(
    stream: PyRef<'_, RawStream>,
    url: &str,
    password: Option<String>,
    table: &str,
    key: Option<Vec<String>>,
    must_exist: bool,
) -> PyResult<RawSink> {
    with_mysql::write(&stream, url, table, with_mysql::Writing { password, key, must_exist })
}

#[cfg(feature = "mysql")]
mod with_mysql {
    use std::sync::Arc;

    use millstream::connectors::{MysqlSink, MysqlSource, MysqlSourceOptions};

    use super::*;
    use crate::error::IntoPython;

    pub use millstream::connectors::MysqlSinkOptions as Writing;

    pub fn read(py: Python<'_>, url: &str, password: Option<String>, relation: &str, order_by: Vec<String>) -> PyResult<RawStream> {
        let options = MysqlSourceOptions { password, order_by };
        // The server is asked: others may run meanwhile.
        py.detach(|| MysqlSource::new(url, relation, options)).and_then(RawStream::of).into_python()
    }

    pub fn write(stream: &RawStream, url: &str, table: &str, options: Writing) -> PyResult<RawSink> {
        let sink = MysqlSink::new(url, table, options).into_python()?;
        Ok(RawSink { node: stream.stream.sink(Arc::new(sink)).into_python()? })
    }
}

#[cfg(not(feature = "mysql"))]
mod with_mysql {
    use super::*;
    use crate::error::PlanError;

    fn missing() -> PyErr {
        PlanError::new_err("this build of Millstream has no MySQL: it was made without the feature \"mysql\"")
    }

    pub fn read(_: Python<'_>, _: &str, _: Option<String>, _: &str, _: Vec<String>) -> PyResult<RawStream> {
        Err(missing())
    }

    pub struct Writing {
        pub password: Option<String>,
        pub key: Option<Vec<String>>,
        pub must_exist: bool,
    }

    pub fn write(_: &RawStream, _: &str, _: &str, _: Writing) -> PyResult<RawSink> {
        Err(missing())
    }
}
