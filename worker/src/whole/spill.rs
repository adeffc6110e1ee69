//! Records that do not fit into memory, in a file of this process: a transaction of the source may
//! be larger than any memory, and nothing of it may be delivered before its end is there.
//!
//! The file has no name, so that it is gone with the process, however that ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::source::record::{Header, Record};

/// Bytes read at a time.
const READ: usize = 1 << 18;

/// What is queued of a partition: a record, or neighbouring ones in the file.
#[derive(Debug)]
pub enum Stored {
    /// In memory.
    Memory(Record),
    /// In the file.
    Disk(Range),
}

/// Records that stand together in the file.
#[derive(Debug)]
pub struct Range {
    file: Arc<File>,
    from: u64,
    to: u64,
    records: u64,
}

impl Stored {
    /// Number of records.
    pub fn count(&self) -> u64 {
        match self {
            Self::Memory(_) => 1,
            Self::Disk(range) => range.records,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Spill {
    directory: PathBuf,
    /// As long as nobody else has it, nothing in it is needed.
    file: Option<Arc<File>>,
    end: u64,
}

impl Spill {
    /// Writes into `directory` once something is to be written.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), file: None, end: 0 }
    }

    /// Puts a record behind those of its run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&mut self, record: &Record, run: &mut Vec<Stored>) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(record.weight() + 64);
        encode(record, &mut bytes);
        let file = self.ready()?;
        file.write_all_at(&bytes, self.end)?;
        let from = self.end;
        self.end += bytes.len() as u64;
        match run.last_mut() {
            Some(Stored::Disk(range)) if range.to == from && Arc::ptr_eq(&range.file, &file) => {
                range.to = self.end;
                range.records += 1;
            }
            _ => run.push(Stored::Disk(Range { file, from, to: self.end, records: 1 })),
        }
        Ok(())
    }

    fn ready(&mut self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            if self.end > 0 && Arc::strong_count(file) == 1 {
                file.set_len(0)?;
                self.end = 0;
            }
            return Ok(file.clone());
        }
        let file = Arc::new(tempfile::tempfile_in(&self.directory)?);
        self.file = Some(file.clone());
        Ok(file)
    }
}

/// Reads stored records in their order.
#[derive(Debug)]
pub struct Reader<'s> {
    stored: std::slice::Iter<'s, Stored>,
    /// The range that is read, up to where, and what was read of it and not yet given.
    range: Option<(&'s Range, u64)>,
    buffer: Vec<u8>,
    start: usize,
    record: Option<Record>,
}

impl<'s> Reader<'s> {
    /// From the first on.
    pub fn new(stored: &'s [Stored]) -> Self {
        Self { stored: stored.iter(), range: None, buffer: Vec::new(), start: 0, record: None }
    }

    /// The next record; `None` behind the last.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn advance(&mut self) -> io::Result<Option<&Record>> {
        if self.range.is_none() {
            match self.stored.next() {
                None => return Ok(None),
                Some(Stored::Memory(record)) => return Ok(Some(record)),
                Some(Stored::Disk(range)) => self.range = Some((range, range.from)),
            }
        }
        let bytes = self.frame()?;
        self.record = Some(decode(&bytes)?);
        if let Some((range, at)) = self.range
            && at == range.to
            && self.start == self.buffer.len()
        {
            self.range = None;
        }
        Ok(self.record.as_ref())
    }

    /// The next record's bytes.
    fn frame(&mut self) -> io::Result<Vec<u8>> {
        self.fill(4)?;
        let head = self.buffer.get(self.start..self.start + 4).ok_or_else(damaged)?;
        let length = u32::from_le_bytes(head.try_into().map_err(|_| damaged())?) as usize;
        self.start += 4;
        self.fill(length)?;
        let bytes = self.buffer.get(self.start..self.start + length).ok_or_else(damaged)?.to_vec();
        self.start += length;
        Ok(bytes)
    }

    /// Has at least so many bytes in the buffer.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let held = self.buffer.len() - self.start;
        if held >= wanted {
            return Ok(());
        }
        let Some((range, at)) = self.range.as_mut() else { return Err(damaged()) };
        self.buffer.drain(..self.start);
        self.start = 0;
        let left = usize::try_from(range.to - *at).unwrap_or(usize::MAX);
        let more = (wanted - held).max(READ).min(left);
        self.buffer.resize(held + more, 0);
        range.file.read_exact_at(&mut self.buffer[held..], *at)?;
        *at += more as u64;
        if held + more < wanted { Err(damaged()) } else { Ok(()) }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the spill file is damaged")
}

fn part(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(u32::MAX, |bytes| bytes.len() as u32);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn encode(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&record.offset.to_le_bytes());
    out.extend_from_slice(&record.timestamp_ms.to_le_bytes());
    part(out, record.key());
    part(out, record.value());
    for (name, value) in record.headers() {
        part(out, Some(name.as_bytes()));
        part(out, Some(value));
    }
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_le_bytes());
}

fn decode(bytes: &[u8]) -> io::Result<Record> {
    let number = |at: usize| -> io::Result<i64> {
        let bytes = bytes.get(at..at + 8).ok_or_else(damaged)?;
        Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| damaged())?))
    };
    let (offset, timestamp_ms) = (number(0)?, number(8)?);
    let mut rest = bytes.get(16..).ok_or_else(damaged)?;
    let (key, value) = (unpart(&mut rest)?, unpart(&mut rest)?);
    let mut headers: Vec<Header> = Vec::new();
    while !rest.is_empty() {
        let name = unpart(&mut rest)?.unwrap_or_default();
        let value = unpart(&mut rest)?.unwrap_or_default();
        headers.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    Ok(Record::new(offset, timestamp_ms, key, value).with_headers(headers))
}

fn unpart<'b>(rest: &mut &'b [u8]) -> io::Result<Option<&'b [u8]>> {
    let (head, tail) = rest.split_at_checked(4).ok_or_else(damaged)?;
    *rest = tail;
    let length = u32::from_le_bytes(head.try_into().map_err(|_| damaged())?);
    if length == u32::MAX {
        return Ok(None);
    }
    let (bytes, tail) = rest.split_at_checked(length as usize).ok_or_else(damaged)?;
    *rest = tail;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Record {
        let value = vec![b'v'; (offset as usize * 7919) % 40_000];
        let value = (offset % 5 != 0).then_some(value.as_slice());
        let headers = (0..offset % 3).map(|n| (format!("h{n}"), vec![n as u8])).collect();
        Record::new(offset, offset * 10, Some(&offset.to_le_bytes()), value).with_headers(headers)
    }

    fn shown(record: &Record) -> String {
        format!("{record:?}")
    }

    #[test]
    fn what_was_put_comes_back_in_order_and_the_file_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(directory.path());
        for _ in 0..2 {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for offset in 0..60 {
                first.push(Stored::Memory(record(offset)));
            }
            for offset in 60..400 {
                spill.put(&record(offset), &mut first).unwrap();
            }
            spill.put(&record(1000), &mut second).unwrap();
            spill.put(&record(400), &mut first).unwrap();
            assert_eq!(first.len(), 62, "neighbours in the file are one");
            let mut reader = Reader::new(&first);
            for offset in 0..=400 {
                assert_eq!(shown(reader.advance().unwrap().unwrap()), shown(&record(offset)));
            }
            assert!(reader.advance().unwrap().is_none());
            let mut reader = Reader::new(&second);
            assert_eq!(shown(reader.advance().unwrap().unwrap()), shown(&record(1000)));
            assert!(reader.advance().unwrap().is_none());
        }
        let end = spill.end;
        assert!(end < 20_000_000, "the second round begins at the file's start: {end}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "it has no name");
    }
}
