//! What tests that go wrong at random share.

/// The seed of a test's chances: `CDC_TEST_SEED`, or any; it is printed, so that a failure can be
/// repeated.
pub fn seed() -> u64 {
    let given = cdc_shared::config::process_variables().remove("CDC_TEST_SEED");
    let seed = given.and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("CDC_TEST_SEED={seed}");
    seed
}
