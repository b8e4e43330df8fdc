//! Many connections of one client, driven by one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A connection of the crowd.
pub struct Member {
    stream: TcpStream,
    unsent: Vec<u8>,
    /// The bytes of all responses so far.
    pub received: Vec<u8>,
    /// Whether the server has closed or reset the connection.
    pub closed: bool,
}

pub struct Crowd {
    pub members: Vec<Member>,
}

impl Crowd {
    /// Opens `count` connections at once.
    pub fn connect(address: SocketAddr, count: usize) -> Crowd {
        let members = (0..count)
            .map(|_| {
                let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("the server accepts");
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                Member {
                    stream,
                    unsent: Vec::new(),
                    received: Vec::new(),
                    closed: false,
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

    /// Sends what is queued and, if `reading`, receives, until all members are as wanted, for at most `within`. Returns
    /// whether they are.
    pub fn until(&mut self, within: Duration, reading: bool, wanted: impl Fn(&Member) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut as_wanted: Vec<bool> = self.members.iter().map(&wanted).collect();
        loop {
            let mut moved = false;
            for (member, as_wanted) in self.members.iter_mut().zip(&mut as_wanted) {
                if member.send_some() | (reading && member.receive_some(16 * 1024)) {
                    moved = true;
                    *as_wanted = wanted(member);
                }
            }
            if !as_wanted.contains(&false) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            if !moved {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Sends what is queued and, if `reading`, receives, for `duration`.
    pub fn run_for(&mut self, duration: Duration, reading: bool) {
        self.until(duration, reading, |_| false);
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
}

impl Member {
    /// Writes once. Returns whether anything happened.
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
                true
            }
        }
    }

    /// Reads once, at most `max` bytes. Returns whether anything happened.
    fn receive_some(&mut self, max: usize) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk[..max]) {
            Ok(0) if self.closed => false,
            Ok(0) => {
                self.closed = true;
                true
            }
            Ok(len) => {
                self.received.extend_from_slice(&chunk[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) if self.closed => false,
            Err(_) => {
                self.closed = true;
                true
            }
        }
    }

    /// Returns the statuses of the responses received so far, in order. An incomplete response counts once its head is
    /// complete.
    pub fn statuses(&self) -> Vec<u16> {
        let mut statuses = Vec::new();
        let mut rest = &self.received[..];
        while let Some(head_len) = rest.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = std::str::from_utf8(&rest[..head_len]).expect("a head is ASCII");
            statuses.push(
                head.strip_prefix("HTTP/1.1 ")
                    .unwrap_or_else(|| panic!("no response: {head:?}"))[..3]
                    .parse()
                    .unwrap(),
            );
            let body_len = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(usize::MAX, |length| length.parse().unwrap());
            rest = rest
                .get(head_len + 4..)
                .and_then(|rest| rest.get(body_len..))
                .unwrap_or(&[]);
        }
        statuses
    }

    /// Returns whether `count` responses have arrived.
    pub fn has(&self, count: usize) -> bool {
        self.statuses().len() >= count
    }
}
