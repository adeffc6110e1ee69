//! Reading what was fetched: of which transaction it is, and where it waits.

use cdc_shared::api::ErrorReport;
use cdc_shared::clock::unix_ms;
use cdc_shared::envelope::Mark;
use cdc_shared::registry::{RETRY_PAUSE, RegistryError};

use super::intake::{self, Read};
use super::part::Part;
use super::session::{Fetching, MARKS_AHEAD, Session};
use super::spill::Stored;
use super::task::{Next, WholeTask};
use crate::pipeline::decode::schema_ids;
use crate::pipeline::hold::Hold;
use crate::sink::Rejection;
use crate::source::record::Record;
impl WholeTask {
    /// Reads what was fetched of a partition.
    pub(super) fn take_in(
        &self,
        session: &mut Session,
        parts: &mut [Part],
        place: usize,
    ) -> Result<(), Next> {
        let is_marks = place + 1 == parts.len();
        let Some(part) = parts.get_mut(place) else { return Ok(()) };
        while part.hold.is_none() && session.fetching.is_none() {
            if is_marks && session.assembler.pending() >= MARKS_AHEAD {
                return Ok(());
            }
            let Some(record) = part.unread.pop_front() else { break };
            let again = if is_marks {
                self.take_mark(session, part, record)
            } else {
                self.take_change(session, place, part, record)?
            };
            if let Some(record) = again {
                part.unread.push_front(record);
                break;
            }
        }
        match part.reached.filter(|_| part.unread.is_empty()) {
            Some(reached) if is_marks => session.assembler.marks_reached(reached),
            Some(reached) => session.assembler.reached(place, reached),
            None => {}
        }
        Ok(())
    }

    /// Gives the record back when it must be read again later.
    fn take_mark(&self, session: &mut Session, part: &mut Part, record: Record) -> Option<Record> {
        let offset = record.offset;
        let mark = match intake::mark(&record, &self.shared.registry) {
            Ok(mark) => mark,
            Err(Read::NeedsSchema(id)) => {
                session.fetching = Some(self.fetch(id));
                return Some(record);
            }
            Err(Read::Rejected(rejection)) if !self.is_skipped(part, offset) => {
                part.hold = Some(self.rejected(offset, rejection));
                return Some(record);
            }
            Err(_) => None,
        };
        part.depth = part.depth.saturating_sub(1);
        match mark {
            Some(Mark::Begin(transaction)) => session.assembler.begin(offset, transaction),
            Some(Mark::End(transaction, counts)) => {
                let place =
                    |name: &str| self.options.tables.iter().position(|(table, _)| table == name);
                let counts = counts.into_iter();
                let counts = counts.filter_map(|(name, count)| Some((place(&name)?, count)));
                session.assembler.end(offset, transaction, counts.collect());
            }
            None => session.assembler.marks_reached(offset + 1),
        }
        None
    }

    /// As [`Self::take_mark`].
    fn take_change(
        &self,
        session: &mut Session,
        place: usize,
        part: &mut Part,
        record: Record,
    ) -> Result<Option<Record>, Next> {
        let (offset, schemas) = (record.offset, schema_ids(&record));
        let (registry, filter) = (&self.shared.registry, self.shared.filter);
        match intake::change(&mut session.decoder, &record, registry, filter) {
            Read::NeedsSchema(id) => {
                session.fetching = Some(self.fetch(id));
                return Ok(Some(record));
            }
            Read::Rejected(_) if self.is_skipped(part, offset) => {
                tracing::warn!(tp = %part.tp(), offset, "skipped by an operator");
                part.depth = part.depth.saturating_sub(1);
                session.assembler.given_up(place, offset);
            }
            Read::Rejected(rejection) => {
                part.hold = Some(self.rejected(offset, rejection));
                return Ok(Some(record));
            }
            Read::Nothing => {
                part.note(offset, schemas, None);
                part.depth = part.depth.saturating_sub(1);
                session.assembler.nothing(place, offset);
            }
            Read::Change { label, source_ms } => {
                part.note(offset, schemas, source_ms);
                let weight = record.weight();
                let mut stored = Ok(());
                let (spill, memory) = (&mut session.spill, &mut session.memory);
                session.assembler.record(place, offset, label.as_ref(), |run| {
                    let on_disk = matches!(run.last(), Some(Stored::Disk(_)));
                    if *memory + weight <= self.options.memory && !on_disk {
                        *memory += weight;
                        run.push(Stored::Memory(record));
                    } else {
                        stored = spill.put(&record, run);
                    }
                });
                if let Err(error) = stored {
                    self.told("spill_failed", &format!(
                        "a transaction does not fit into memory, and {} cannot be written: {error}",
                        self.options.spill_directory.display()
                    ));
                    return Err(Next::Later);
                }
            }
        }
        Ok(None)
    }

    fn is_skipped(&self, part: &Part, offset: i64) -> bool {
        let control = self.shared.control.borrow().state.clone();
        let topic_id = part.position().map(|position| &position.topic_id);
        topic_id.is_some_and(|topic_id| {
            control.skip_to(&self.shared.sink_id, part.tp(), topic_id, offset).is_some()
        })
    }

    fn rejected(&self, offset: i64, rejection: Rejection) -> Hold {
        let Rejection { code, message, way_out } = rejection;
        self.refused(Some(offset), code, message, way_out)
    }

    pub(super) fn refused(
        &self,
        offset: Option<i64>,
        code: &str,
        message: String,
        way_out: Option<String>,
    ) -> Hold {
        let since = self.shared.control_offset();
        if let Some(way_out) = way_out {
            let mut hold = Hold::stopped(code, message, offset, since);
            hold.report.way_out = way_out;
            return hold;
        }
        let at = offset.map_or_else(String::new, |offset| format!("offset {offset} "));
        let message = format!("{at}can never be delivered: {code}: {message}");
        Hold::stopped("rejected_record", message, offset, since)
    }

    fn fetch(&self, id: i32) -> Fetching {
        let shared = self.shared.clone();
        Box::pin(async move {
            let fetched = shared.registry.schema(id).await.map(|_| ());
            if fetched.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            fetched
        })
    }

    pub(super) fn fetched(&self, fetched: &Result<(), RegistryError>) {
        if let Err(error) = fetched {
            self.told("registry_unavailable", &error.to_string());
        }
    }

    pub(super) fn told(&self, code: &str, message: &str) {
        tracing::warn!(sink = %self.shared.sink_id, code, message, "waiting");
        let (code, message) = (code.to_owned(), message.to_owned());
        let report = ErrorReport { code, message, at_ms: unix_ms() };
        self.shared.status.set_error(Some(report));
    }
}
