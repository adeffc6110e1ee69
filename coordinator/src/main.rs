//! cdc-coordinator
fn main() {}
