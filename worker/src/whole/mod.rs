//! `consistency: transaction`: what one transaction of the source changed becomes visible in the
//! sink at once, in the order of the commits.
//!
//! ```text
//! chunks of every partition ─▸ take.rs ─▸ assembler.rs ─▸ depart.rs ─▸ release.rs: one flight
//! and of the transaction topic  │ intake.rs   │ spill.rs                    │
//!                                                            sink/whole.rs: one transaction
//! ```
//!
//! Where `pipeline` has a task per partition, here one task owns every partition of the sink's
//! topics and the transaction topic; it does nothing while another worker has one of them
//! ([`leader`]). The position of each partition moves in the transaction that writes its rows, by
//! the same compare-and-set; beside them the record of the transaction topic, whose `value_schema`
//! is a sum over all positions: where it is right they belong together, and the next session may
//! expect every transaction to be whole.

pub mod assembler;
mod depart;
mod intake;
pub mod leader;
mod part;
mod release;
mod session;
pub mod spill;
mod take;
pub mod task;
