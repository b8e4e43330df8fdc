//! An HTTP client that exposes every byte, and load from many such clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::PATIENCE;
use crate::access_log::Durations;

/// How long a client waits for a byte before it counts the request as lost.
const TIMEOUT: Duration = PATIENCE;

/// A client with one keep-alive connection. After a response with `Connection: close` it opens a new one for the next
/// request.
pub struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    /// Whether the last response had `Connection: close`.
    closing: bool,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the value of the first header with a name, ignoring case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns whether `Connection`, one list over all its lines, has a token (RFC 9110, section 7.6.1).
    pub fn connection_has(&self, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case("Connection"))
            .flat_map(|(_, value)| value.split(','))
            .any(|member| member.trim().eq_ignore_ascii_case(token))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }
}

/// Connects from another address of this host, `from`, so that the port is not that of a client whose connection was just closed or
/// reset: to the server, that would be the same client (docs/robustness.md).
pub fn connect_from(from: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    let connected = socket.connect_timeout(&address.into(), TIMEOUT);
    connected.expect("the server accepts");
    socket.into()
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::of(
            address,
            TcpStream::connect_timeout(&address, TIMEOUT).expect("the server accepts"),
        )
    }

    /// Connects from another address of this host (see [`connect_from`]).
    pub fn connect_from(from: Ipv4Addr, address: SocketAddr) -> Client {
        Client::of(address, connect_from(from, address))
    }

    fn of(address: SocketAddr, stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client {
            address,
            stream: BufReader::new(stream),
            closing: false,
        }
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends bytes on the current connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .get_mut()
            .write_all(bytes.as_ref())
            .expect("the server reads");
    }

    /// Sends a request without a body. Opens a new connection if the last response closed the current one.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) {
        if self.closing {
            *self = Client::connect(self.address);
        }
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.send(head + "\r\n");
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[]);
        self.receive().expect("a response")
    }

    pub fn head(&mut self, target: &str) -> Response {
        self.request("HEAD", target, &[]);
        self.receive_head().expect("a response")
    }

    /// Reads a response to any method except HEAD.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection if it times out or closes.
    pub fn receive(&mut self) -> std::io::Result<Response> {
        let mut response = self.receive_head()?;
        match response.header("Content-Length").map(|length| length.parse().unwrap()) {
            Some(length) => {
                response.body = vec![0; length];
                self.stream.read_exact(&mut response.body)?;
            }
            None if response.header("Transfer-Encoding") == Some("chunked") => response.body = self.receive_chunks()?,
            None => {
                self.stream.read_to_end(&mut response.body)?;
            }
        }
        Ok(response)
    }

    /// Reads a chunked body, as Prometheus sends its longer responses (RFC 9112, section 7.1).
    fn receive_chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut size = String::new();
            self.stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk's size");
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.stream.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads a response's head.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection if it times out or closes.
    pub fn receive_head(&mut self) -> std::io::Result<Response> {
        let mut line = || -> std::io::Result<String> {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Ok(line.trim_end_matches("\r\n").to_owned())
        };
        let status_line = line()?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let mut headers = Vec::new();
        loop {
            let header = line()?;
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(": ").expect("a header");
            headers.push((name.to_owned(), value.to_owned()));
        }
        let response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        self.closing = response.connection_has("close");
        Ok(response)
    }
}

/// What the clients of a load measured.
///
/// With clocks of their own, and on processors that they share: print it, and assert what the server recorded.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// The latency of each answered request.
    pub latencies: Durations,
    /// The number of requests that were not answered.
    pub lost: usize,
}

/// Runs `clients` clients, each of which requests `target` again and again until its first response after `lasts`.
pub fn load(address: SocketAddr, target: &str, clients: usize, lasts: Duration) -> Seen {
    load_until(address, target, clients, lasts, &AtomicBool::new(false))
}

/// The same, but stops early if `stop` is set.
pub fn load_until(address: SocketAddr, target: &str, clients: usize, lasts: Duration, stop: &AtomicBool) -> Seen {
    let start = Instant::now();
    let goes_on = || start.elapsed() < lasts && !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                std::thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn_scoped(scope, || one_client(address, target, goes_on))
                    .expect("a thread for a client")
            })
            .collect();
        let (mut latencies, mut lost) = (Vec::new(), 0);
        for thread in threads {
            let one = thread.join().expect("a client");
            latencies.extend(one.0);
            lost += one.1;
        }
        Seen {
            latencies: latencies.into_iter().collect(),
            lost,
        }
    })
}

/// Returns the latencies of the answered requests of one client, and the number of the others.
fn one_client(address: SocketAddr, target: &str, goes_on: impl Fn() -> bool) -> (Vec<Duration>, usize) {
    let (mut latencies, mut lost) = (Vec::new(), 0);
    let mut client = Client::connect(address);
    while goes_on() {
        let sent_at = Instant::now();
        client.request("GET", target, &[]);
        match client.receive() {
            Ok(_) => latencies.push(sent_at.elapsed()),
            Err(_) => {
                lost += 1;
                client = Client::connect(address);
            }
        }
    }
    (latencies, lost)
}
