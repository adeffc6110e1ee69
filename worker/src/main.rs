//! cdc-worker
fn main() {}
