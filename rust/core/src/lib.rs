//! The extension module `duckweed._core`: the only crate that knows Python.
//!
//! A binding here is four lines of thought: take the arguments, let go of the GIL,
//! call the pure crate, turn the error into a Python one. Anything cleverer is in
//! the wrong place. Python's side of the agreement is `python/duckweed/_core.pyi`.

mod archive;
mod copying;
mod layer;
mod message;
mod process;
mod program;
mod standby;
mod template;
mod transfer;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Renders a Go template over a JSON document. Raises ValueError with one line.
#[pyfunction]
fn render_template(template: &str, data: &str) -> PyResult<String> {
    template::render(template, data).map_err(PyValueError::new_err)
}

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<process::RunResult>()?;
    module.add_class::<standby::Standbys>()?;
    module.add_class::<layer::LayerReport>()?;
    module.add_class::<layer::Gate>()?;
    module.add_class::<layer::Cancel>()?;
    module.add_class::<transfer::Transport>()?;
    module.add_class::<transfer::Part>()?;
    module.add_class::<transfer::Reply>()?;
    module.add_class::<transfer::Counter>()?;
    module.add_function(wrap_pyfunction!(layer::extract_layer, module)?)?;
    module.add_function(wrap_pyfunction!(layer::archive_index, module)?)?;
    module.add_function(wrap_pyfunction!(layer::decompress, module)?)?;
    module.add_function(wrap_pyfunction!(layer::digest_file, module)?)?;
    module.add_function(wrap_pyfunction!(archive::archive_tree, module)?)?;
    module.add_function(wrap_pyfunction!(copying::send_path, module)?)?;
    module.add_function(wrap_pyfunction!(copying::receive_path, module)?)?;
    module.add_function(wrap_pyfunction!(archive::tree_changes, module)?)?;
    module.add_function(wrap_pyfunction!(archive::write_layer, module)?)?;
    module.add_function(wrap_pyfunction!(archive::pack_layer, module)?)?;
    module.add_function(wrap_pyfunction!(archive::write_archive, module)?)?;
    module.add_function(wrap_pyfunction!(render_template, module)?)?;
    module.add_function(wrap_pyfunction!(process::spawn, module)?)?;
    module.add_function(wrap_pyfunction!(process::run_inherit, module)?)?;
    module.add_function(wrap_pyfunction!(process::settle, module)?)?;
    module.add_function(wrap_pyfunction!(process::process_start, module)?)?;
    module.add_function(wrap_pyfunction!(process::boot_id, module)?)?;
    module.add_function(wrap_pyfunction!(message::channel, module)?)?;
    module.add_function(wrap_pyfunction!(message::connect, module)?)?;
    module.add_function(wrap_pyfunction!(message::send, module)?)?;
    module.add_function(wrap_pyfunction!(message::receive_message, module)?)?;
    Ok(())
}
