//! The health check of a container: a process asks another one of the same binary whether it is
//! ready. Plain HTTP by hand: it is done every few seconds, and must not cost the start of a client.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::exit::Exit;

/// Longest wait for each step of the answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024;

/// What a process says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probed {
    /// Yes.
    Ready,
    /// No, with its reasons.
    NotReady(String),
    /// Nothing.
    NoAnswer(String),
}

/// Asks for `path` at `address` (`host:port`).
pub fn probe(address: &str, path: &str) -> Probed {
    match ask(address, path) {
        Ok((200, _)) => Probed::Ready,
        Ok((status, body)) => Probed::NotReady(format!("{status}: {}", body.trim())),
        Err(error) => Probed::NoAnswer(error.to_string()),
    }
}

impl Probed {
    /// Says on standard error what is wrong, for `docker inspect`, and gives the exit code: 0 ready,
    /// 1 not ready, 69 no answer.
    pub fn tell(&self, program: &str, address: &str) -> ExitCode {
        let (code, said) = match self {
            Self::Ready => return ExitCode::SUCCESS,
            Self::NotReady(reasons) => (ExitCode::from(1), format!("not ready: {reasons}")),
            Self::NoAnswer(cause) => {
                (Exit::Unavailable.into(), format!("no answer from {address}: {cause}"))
            }
        };
        let _ = writeln!(io::stderr(), "{program}: {said}");
        code
    }
}

fn ask(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, TIMEOUT) {
            Ok(stream) => return exchange(stream, address, path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(mut stream: TcpStream, address: &str, path: &str) -> io::Result<(u16, String)> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// An address that gives this answer once.
    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            // It may come in parts.
            while !request.ends_with(b"\r\n\r\n") {
                let mut part = [0; 1024];
                let read = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..read]);
            }
            assert!(request.starts_with(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn the_answers_status_decides() {
        let ask = |answer| probe(&answering(answer), "/readyz");
        assert_eq!(ask("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), Probed::Ready);
        assert_eq!(
            ask("HTTP/1.1 503 Service Unavailable\r\n\r\nkafka: no answer\n"),
            Probed::NotReady("503: kafka: no answer".into())
        );
        for nonsense in ["", "SSH-2.0-x\r\n", "HTTP/1.1 2"] {
            assert_eq!(ask(nonsense), Probed::NoAnswer("the answer is not HTTP".into()));
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Probed::NoAnswer(cause) = probe(&free.to_string(), "/readyz") else { panic!() };
        assert!(cause.contains("refused"), "{cause}");
    }
}
