//! The `gantry-operator` binary.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "prints the CRD only, until there is more to it")]
fn main() { print!("{}", gantry_operator::api::crd_yaml().unwrap()); }
