//! Faults that tests of jobs inject: into the process, and into a disk in memory.

use std::collections::BTreeMap;

use millstream::FaultDisk;
use millstream::fault::{Effect, Fault};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A disk in memory for a state directory.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
pub struct RawDisk {
    /// The disk; clones share it.
    pub disk: FaultDisk,
}

#[pymethods]
impl RawDisk {
    #[new]
    fn new() -> RawDisk {
        RawDisk { disk: FaultDisk::new() }
    }

    /// Lets the operation of this number, counted from 0, fail; or the machine crash at it.
    fn fail_at(&self, operation: u64, is_crash: bool) {
        let fault = if is_crash { millstream::DiskFault::Crash } else { millstream::DiskFault::Fail };
        self.disk.fail_at(operation, fault);
    }

    /// How many operations there were.
    fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// How many more bytes can be allocated; `None` for no limit.
    fn set_space(&self, bytes: Option<u64>) {
        self.disk.set_space(bytes);
    }

    /// The disk as found after the machine crashed: what was synced, and of the rest what the seed decides.
    fn after_crash(&self, seed: u64) -> RawDisk {
        RawDisk { disk: self.disk.after_crash(seed) }
    }

    /// The disk as found after the process was killed.
    fn after_kill(&self) -> RawDisk {
        RawDisk { disk: self.disk.after_kill() }
    }
}

/// Arms a fault of the process; see `mill_fault`.
#[pyfunction]
pub fn arm(step: String, first: u64, times: u64, effect: &str) -> PyResult<()> {
    let effect = match effect {
        "count" => Effect::Count,
        "kill" => Effect::Kill,
        "die" => Effect::Die,
        "fail" => Effect::Fail,
        "full" => Effect::Full,
        "panic" => Effect::Panic,
        other => {
            return Err(PyValueError::new_err(format!(
                "effect is {other:?}; it is \"count\", \"kill\", \"die\", \"fail\", \"full\" or \"panic\""
            )));
        }
    };
    millstream::fault::arm(Fault { step, first, times, effect });
    Ok(())
}

/// Lets everything work again; returns how often each step was reached.
#[pyfunction]
pub fn disarm() -> BTreeMap<&'static str, u64> {
    millstream::fault::disarm()
}
