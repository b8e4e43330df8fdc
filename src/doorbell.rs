//! The doorbell: a connection to ourselves that says nothing and closes.
//!
//! tiny_http parks connections: its pool starts a thread only when it believes that none is idle, and woken threads count as
//! idle for a moment longer, so that a burst leaves connections queued behind the ones that are being served. Whatever is
//! accepted next frees one: the thread that takes it takes the oldest parked connection afterwards.
//!
//! What is always true: a ring that is answered was accepted, served and closed by tiny_http. So everything that the kernel had
//! queued before it is accepted too; and if a thread more exists after the ring than before it, something was parked or
//! another connection came, and either is a reason to ring again. A ring without such a thread ends the series.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// What came of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// tiny_http accepted it and let it go.
    Answered,
    /// Nobody accepted it in time.
    Unanswered,
    /// It could not be rung: the process or the system is short of descriptors or ports.
    Failed,
}

/// The address that rings go to.
#[derive(Debug, Clone, Copy)]
pub struct Doorbell {
    address: SocketAddr,
}

impl Doorbell {
    /// The doorbell of a server that listens on `listening`; on the loopback where that is every address.
    pub fn of(listening: SocketAddr) -> Self {
        let ip = match listening.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        Doorbell {
            address: SocketAddr::new(ip, listening.port()),
        }
    }

    /// Rings once, and waits for the answer for as long as `within`.
    pub fn ring(self, within: Duration) -> Ring {
        let heard = |mut bell: TcpStream| -> io::Result<usize> {
            bell.set_read_timeout(Some(within))?;
            bell.shutdown(Shutdown::Write)?;
            bell.read(&mut [0])
        };
        match TcpStream::connect_timeout(&self.address, within) {
            Ok(bell) => match heard(bell) {
                Ok(_) => Ring::Answered,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ring::Answered,
                Err(_) => Ring::Unanswered,
            },
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ring::Unanswered,
            Err(_) => Ring::Failed,
        }
    }

    /// Rings until a ring is answered without a new thread, or is not answered; at most `rings_max` times.
    pub fn ring_until_settled(self, rings_max: usize, within: Duration) -> Ring {
        let mut threads = thread_count();
        for _ in 0..rings_max {
            let ring = self.ring(within);
            let before = std::mem::replace(&mut threads, thread_count());
            if ring != Ring::Answered || threads <= before {
                return ring;
            }
        }
        Ring::Answered
    }
}

/// The number of the process's threads, and a constant; 0 where it can not be told.
///
/// The folder has a link for each thread. To ask for it opens nothing and costs a tenth of reading `Threads:` out of
/// `/proc/self/status`.
fn thread_count() -> u64 {
    fs::metadata("/proc/self/task").map_or(0, |folder| folder.nlink())
}
