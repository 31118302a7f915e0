//! Lets the module link where an interpreter is not there yet (macOS wants to be told).

fn main() {
    pyo3_build_config::add_extension_module_link_args();
}
