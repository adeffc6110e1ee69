//! Tables that are kept by key.

mod letters;
mod model;
mod moves;
mod rewind;
mod rows;
mod saved;

use cdc_worker::change::KeyChange;

use super::faults::{Fault, Faulty};
use super::*;
use crate::replica::event::UNAVAILABLE;

fn full(id: i64, name: &'static str, large: &'static str) -> [V; 3] {
    [V::N(id), V::T(name), V::T(large)]
}

#[track_caller]
fn stopped(progress: Progress, code: &str) -> Option<i64> {
    match progress {
        Progress::Rejected { offset, error } if error.code == code => offset,
        other => panic!("no {code}: {other:?}"),
    }
}
