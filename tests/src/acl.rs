//! Rights in Kafka, given by its own protocol: the client library cannot.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::stack::Stack;

/// What a right is over, as Kafka numbers it.
#[derive(Clone, Copy, Debug)]
pub enum On<'n> {
    /// One topic.
    Topic(&'n str),
    /// One consumer group.
    Group(&'n str),
    /// One transactional id.
    TransactionalId(&'n str),
    /// Every topic whose name begins so.
    Topics(&'n str),
}

/// What may be done, as Kafka numbers it.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum May {
    /// Includes Describe.
    Read = 3,
    /// Includes Describe.
    Write = 4,
    /// Of topics.
    Create = 5,
    /// That it is there.
    Describe = 8,
    /// Its settings.
    DescribeConfigs = 10,
}

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;
const ANY: u8 = 1;
const ALLOW: u8 = 3;

/// Rights of users of the SASL listener, taken back when this is dropped.
#[derive(Debug, Default)]
pub struct Rights {
    given: Vec<Vec<u8>>,
}

impl Rights {
    /// Lets `user` do this.
    pub fn give(&mut self, user: &str, rights: &[(On<'_>, &[May])]) {
        for (on, operations) in rights {
            for may in *operations {
                let (kind, name, pattern) = match *on {
                    On::Topic(name) => (2, name, 3),
                    On::Topics(name) => (2, name, 4),
                    On::Group(name) => (3, name, 3),
                    On::TransactionalId(name) => (5, name, 3),
                };
                let mut acl = vec![kind];
                string(&mut acl, name);
                acl.push(pattern);
                string(&mut acl, &format!("User:{user}"));
                string(&mut acl, "*");
                acl.extend([*may as u8, ALLOW]);
                let answer = request(CREATE_ACLS, &acl);
                // Throttle time, one result: its code.
                assert_eq!(answer[4..10], [0, 0, 0, 1, 0, 0], "{user} on {on:?}: {answer:?}");
                let end = acl.len() - 2;
                acl[end..].copy_from_slice(&[ANY, ANY]);
                self.given.push(acl);
            }
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        for filter in &self.given {
            request(DELETE_ACLS, filter);
        }
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// One request, version 1, with one entry; the answer behind its correlation id.
fn request(key: i16, entry: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(key.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend(7_i32.to_be_bytes());
    string(&mut body, "e2e");
    body.extend(1_i32.to_be_bytes());
    body.extend(entry);
    let mut kafka = TcpStream::connect(Stack::get().kafka()).unwrap();
    kafka.write_all(&(body.len() as i32).to_be_bytes()).unwrap();
    kafka.write_all(&body).unwrap();
    let mut length = [0; 4];
    kafka.read_exact(&mut length).unwrap();
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    kafka.read_exact(&mut answer).unwrap();
    answer.split_off(4)
}
