//! Many connections of one client, driven by one thread.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::PATIENCE;

/// The pause after a pass over all members, so that thousands of them leave the processors to the server. A pass that has
/// sent something is followed by the next at once: a fault sends as fast as the server reads.
const PAUSE: Duration = Duration::from_millis(3);

/// The most bytes that are read at a time.
const CHUNK: usize = 16 * 1024;

/// A connection of the crowd.
pub struct Member {
    stream: TcpStream,
    unsent: Vec<u8>,
    /// The bytes of all responses so far.
    pub received: Vec<u8>,
    /// Whether the server has closed or reset the connection.
    pub closed: bool,
    statuses: Vec<u16>,
    /// Where the response after those of `statuses` begins, or will begin.
    next_response: usize,
}

pub struct Crowd {
    pub members: Vec<Member>,
}

impl Crowd {
    /// Opens `count` connections at once.
    pub fn connect(address: SocketAddr, count: usize) -> Crowd {
        Crowd::connect_and_send(address, count, b"")
    }

    /// Opens `count` connections at once, and sends `bytes` on each as soon as it is open.
    pub fn connect_and_send(address: SocketAddr, count: usize, bytes: &[u8]) -> Crowd {
        let members = (0..count)
            .map(|_| {
                let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts");
                stream.write_all(bytes).expect("the server reads");
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                Member {
                    stream,
                    unsent: Vec::new(),
                    received: Vec::new(),
                    closed: false,
                    statuses: Vec::new(),
                    next_response: 0,
                }
            })
            .collect();
        Crowd { members }
    }

    /// Queues `bytes` for each member. [`Crowd::until`] sends them.
    pub fn send(&mut self, bytes: &[u8]) {
        for member in &mut self.members {
            member.unsent.extend_from_slice(bytes);
        }
    }

    /// Sends what is queued, and receives, until all members are as wanted. Panics after [`PATIENCE`].
    pub fn until_all(&mut self, what: &str, wanted: impl Fn(&Member) -> bool) {
        let all = self.members.len();
        self.until(what, all, wanted);
    }

    /// Sends what is queued, and receives, until at least `count` members are as wanted. Panics after [`PATIENCE`].
    pub fn until(&mut self, what: &str, count: usize, wanted: impl Fn(&Member) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(&wanted) < count {
            assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for {count} of {} {what}; at the end {} were, and of each kind there were {:#?}",
                self.members.len(),
                self.count(&wanted),
                self.kinds()
            );
            self.pass(true);
        }
    }

    /// Sends what is queued and, if `reading`, receives, for `duration` or until all are closed.
    pub fn run_for(&mut self, duration: Duration, reading: bool) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.pass(reading);
        }
    }

    /// Sends and, if `reading`, receives as much as is possible now, and pauses unless something was sent.
    fn pass(&mut self, reading: bool) {
        let mut sent = false;
        for member in &mut self.members {
            sent |= member.send_some();
            while reading && member.receive_some(CHUNK) {}
        }
        if !sent {
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends what is queued, and reads at most `max` bytes of each member's responses.
    pub fn drip(&mut self, max: usize) {
        for member in &mut self.members {
            member.send_some();
            member.receive_some(max);
        }
    }

    /// Returns how many members are as wanted.
    pub fn count(&self, wanted: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| wanted(member)).count()
    }

    /// Returns how many members are in the same state, for each state: how much they have not sent, how many responses
    /// they have, the status of the last one, and whether they are closed.
    fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for member in &self.members {
            let kind = format!(
                "{} bytes unsent, {} responses, last {:?}, {}",
                member.unsent.len(),
                member.statuses.len(),
                member.statuses.last(),
                if member.closed { "closed" } else { "open" }
            );
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }
}

impl Member {
    /// Writes once. Returns whether anything was sent.
    fn send_some(&mut self) -> bool {
        if self.unsent.is_empty() || self.closed {
            return false;
        }
        match self.stream.write(&self.unsent) {
            Ok(sent) => {
                self.unsent.drain(..sent);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.closed = true;
                false
            }
        }
    }

    /// Reads once, at most `max` bytes. Returns whether anything was received.
    fn receive_some(&mut self, max: usize) -> bool {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk[..max]) {
            Ok(len @ 1..) => {
                self.received.extend_from_slice(&chunk[..len]);
                self.parse();
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Ok(0) | Err(_) => {
                self.closed = true;
                false
            }
        }
    }

    /// Takes the statuses of the responses whose heads have become complete.
    fn parse(&mut self) {
        while let Some(rest) = self.received.get(self.next_response..)
            && let Some(head_len) = rest.windows(4).position(|end| end == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&rest[..head_len]).expect("a head is ASCII");
            self.statuses.push(
                head.strip_prefix("HTTP/1.1 ")
                    .unwrap_or_else(|| panic!("no response: {head:?}"))[..3]
                    .parse()
                    .unwrap(),
            );
            let body_len = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(usize::MAX, |length| length.parse().unwrap());
            self.next_response = (self.next_response + head_len + 4).saturating_add(body_len);
        }
    }

    /// Returns the statuses of the responses received so far, in order. An incomplete response counts once its head is
    /// complete.
    pub fn statuses(&self) -> &[u16] {
        &self.statuses
    }

    /// Returns whether `count` responses have arrived.
    pub fn has(&self, count: usize) -> bool {
        self.statuses.len() >= count
    }
}
