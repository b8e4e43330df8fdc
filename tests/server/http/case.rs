//! A case: the bytes to send, and the expected response.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::PATIENCE;
use support::server::Server;

/// For how long nothing must happen on a connection that stays open and gets no response.
const SILENCE: Duration = Duration::from_millis(400);

/// The request that shows that a connection is still open.
const NEXT: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n";

/// What is sent on one connection, and what must happen.
pub struct Case {
    /// One or more requests.
    pub sent: String,
    /// The one response, if there is any.
    pub response: Option<Expected>,
    pub then: Then,
}

/// What a response must have.
pub struct Expected {
    pub status: u16,
    pub fields: Vec<Field>,
    pub body: Body,
}

/// A header field of the response.
pub enum Field {
    /// Exactly this value.
    Is(&'static str, &'static str),
    /// Any value.
    Present(&'static str),
    Absent(&'static str),
    /// A list, over all lines, with this member.
    Has(&'static str, &'static str),
}

pub enum Body {
    Any,
    /// One line of text.
    Line,
    /// No byte behind the head, whatever `Content-Length` says.
    None,
}

/// What happens to the connection afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next request on it is answered.
    Open,
    /// The server closes it, and nothing more arrives.
    Closed,
    /// Nothing arrives, and the server does not close the connection for now.
    Silent,
}

/// Returns a request head: `start`, then `Host: test`, then the other lines.
pub fn head(start: &str, lines: &[&str]) -> String {
    let mut all = vec![start, "Host: test"];
    all.extend(lines);
    bare_head(&all)
}

/// Returns a request head of only these lines.
pub fn bare_head(lines: &[&str]) -> String {
    lines.join("\r\n") + "\r\n\r\n"
}

/// Returns a case whose request is answered with `status` on a connection that stays open.
pub fn answered(sent: impl Into<String>, status: u16) -> Case {
    Case {
        sent: sent.into(),
        response: Some(Expected {
            status,
            fields: vec![Field::Absent("Connection")],
            body: Body::Any,
        }),
        then: Then::Open,
    }
}

/// Returns a case whose request is answered with `status` and `Connection: close`.
pub fn last(sent: impl Into<String>, status: u16) -> Case {
    Case {
        sent: sent.into(),
        response: Some(Expected {
            status,
            fields: vec![Field::Has("Connection", "close")],
            body: Body::Any,
        }),
        then: Then::Closed,
    }
}

/// Returns a case that gets the common form of an error, after which the connection closes.
pub fn refused(sent: impl Into<String>, status: u16) -> Case {
    last(sent, status)
        .with(Field::Is("Content-Type", "text/plain; charset=utf-8"))
        .with(Field::Present("Content-Length"))
        .body(Body::Line)
}

/// Returns a case that tiny_http itself answers with an empty response, before it closes the connection.
pub fn answered_by_tiny_http(sent: impl Into<String>, status: u16) -> Case {
    Case {
        sent: sent.into(),
        response: Some(Expected {
            status,
            fields: vec![Field::Is("Content-Length", "0"), Field::Absent("Connection")],
            body: Body::None,
        }),
        then: Then::Closed,
    }
}

/// Returns a case that gets no response.
pub fn no_response(sent: impl Into<String>, then: Then) -> Case {
    Case {
        sent: sent.into(),
        response: None,
        then,
    }
}

impl Case {
    pub fn with(mut self, field: Field) -> Case {
        self.response.as_mut().expect("a response").fields.push(field);
        self
    }

    pub fn body(mut self, body: Body) -> Case {
        self.response.as_mut().expect("a response").body = body;
        self
    }

    /// Returns the row of the table: what is sent, and the response.
    pub fn row(&self) -> String {
        let mut outcome = match &self.response {
            None => "nothing".to_owned(),
            Some(expected) => {
                let mut text = expected.status.to_string();
                for field in &expected.fields {
                    let _ = match field {
                        Field::Is(name, value) => write!(text, ", `{name}: {value}`"),
                        Field::Present(name) => write!(text, ", `{name}`"),
                        // The state of the connection, below, covers this.
                        Field::Has("Connection", "close") | Field::Absent("Connection") => Ok(()),
                        Field::Has(name, member) => write!(text, ", `{member}` in `{name}`"),
                        Field::Absent(name) => write!(text, ", no `{name}`"),
                    };
                }
                match expected.body {
                    Body::None => text += ", no body",
                    Body::Line => text += ", one line",
                    Body::Any => {}
                }
                text
            }
        };
        outcome += match self.then {
            Then::Open => "; stays open",
            Then::Closed if self.announces_close() => "; `Connection: close`",
            Then::Closed => "; closed",
            Then::Silent => "; stays open until a limit closes it",
        };
        format!("| {} | {outcome} |", readable(&self.sent))
    }

    fn announces_close(&self) -> bool {
        let fields = self.response.iter().flat_map(|expected| &expected.fields);
        fields
            .into_iter()
            .any(|field| matches!(field, Field::Has("Connection", "close")))
    }

    /// Sends the case to the server and checks the response.
    ///
    /// # Errors
    ///
    /// Returns what is not as expected, with everything that was received.
    pub fn run(&self, server: &Server) -> Result<(), String> {
        let mut stream = TcpStream::connect(server.address).map_err(|error| error.to_string())?;
        let bytes: Vec<u8> = self
            .sent
            .chars()
            .map(|c| u8::try_from(u32::from(c)).expect("Latin 1"))
            .collect();
        // The server may close the connection before it has all: what it responds counts.
        let _ = stream.write_all(&bytes);
        let mut received = Received::default();
        let outcome = self.check(&mut stream, &mut received);
        let _ = stream.shutdown(Shutdown::Both);
        outcome.map_err(|what| {
            let text = String::from_utf8_lossy(&received.bytes);
            let head = text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n", " / ");
            let end = received.ended.as_deref().unwrap_or("open");
            format!(
                "{}\n    {what}\n    received: {head:?}, then {end}",
                readable(&self.sent)
            )
        })
    }

    fn check(&self, stream: &mut TcpStream, received: &mut Received) -> Result<(), String> {
        let Some(expected) = &self.response else {
            let lasts = if self.then == Then::Closed { PATIENCE } else { SILENCE };
            received.read(stream, lasts, |bytes| !bytes.is_empty());
            let as_expected = received.bytes.is_empty() && received.ended.is_some() == (self.then == Then::Closed);
            return as_expected.then_some(()).ok_or("expected no response".to_owned());
        };
        let head_end = |bytes: &[u8]| bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        received.read(stream, PATIENCE, |bytes| head_end(bytes).is_some());
        let body_at = head_end(&received.bytes).ok_or("no response")?;
        let head = String::from_utf8_lossy(&received.bytes[..body_at]).into_owned();
        let status = head.get(9..12).and_then(|status| status.parse::<u16>().ok());
        if status != Some(expected.status) {
            return Err(format!("expected {}", expected.status));
        }
        for field in &expected.fields {
            check_field(&head, field)?;
        }
        let bodyless = self.sent.starts_with("HEAD ") || matches!(expected.status, 204 | 304);
        let body_len = match values(&head, "Content-Length").first() {
            _ if bodyless => Some(0),
            Some(length) => Some(length.parse::<usize>().map_err(|error| error.to_string())?),
            None => None,
        };
        received.read(stream, PATIENCE, |bytes| {
            body_len.is_some_and(|len| bytes.len() >= body_at + len)
        });
        let response_len = body_len.map_or(received.bytes.len(), |len| body_at + len);
        let body = received
            .bytes
            .get(body_at..response_len)
            .ok_or("the body is cut short")?;
        let text = String::from_utf8_lossy(body);
        match expected.body {
            Body::Line if !bodyless && (text.lines().count() != 1 || !text.ends_with('\n')) => {
                return Err("expected one line as the body".to_owned());
            }
            Body::None if !body.is_empty() => return Err("expected no body".to_owned()),
            _ => {}
        }
        match self.then {
            Then::Closed => {
                received.read(stream, PATIENCE, |bytes| bytes.len() > response_len);
                if received.ended.is_none() || received.bytes.len() > response_len {
                    return Err("expected the connection to close after the response".to_owned());
                }
            }
            Then::Open | Then::Silent => {
                let _ = stream.write_all(NEXT);
                let next_has_arrived = |bytes: &[u8]| bytes[response_len..].windows(6).any(|end| end == b"ready\n");
                received.read(stream, PATIENCE, next_has_arrived);
                let next = &received.bytes[response_len..];
                if !next.starts_with(b"HTTP/1.1 200 ") || !next.ends_with(b"ready\n") {
                    return Err("expected the next request on the connection to be answered".to_owned());
                }
            }
        }
        Ok(())
    }
}

/// What has been received so far.
#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    /// How the connection has ended.
    ended: Option<String>,
}

impl Received {
    /// Reads until there is enough or the connection is closed, for at most `within`.
    fn read(&mut self, stream: &mut TcpStream, within: Duration, enough: impl Fn(&[u8]) -> bool) {
        let deadline = Instant::now() + within;
        let mut chunk = [0; 64 * 1024];
        while self.ended.is_none() && !enough(&self.bytes) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            stream.set_read_timeout(Some(left)).expect("a timeout");
            match stream.read(&mut chunk) {
                Ok(0) => self.ended = Some("closed".to_owned()),
                Ok(len) => self.bytes.extend_from_slice(&chunk[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => self.ended = Some(error.to_string()),
            }
        }
    }
}

/// Returns the values of a field of a response head, one for each line of it.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

fn check_field(head: &str, field: &Field) -> Result<(), String> {
    let (as_expected, what) = match *field {
        Field::Is(name, value) => (values(head, name) == [value], format!("{name}: {value}")),
        Field::Present(name) => (
            values(head, name).iter().any(|value| !value.is_empty()),
            name.to_owned(),
        ),
        Field::Absent(name) => (values(head, name).is_empty(), format!("no {name}")),
        Field::Has(name, member) => (
            values(head, name)
                .iter()
                .flat_map(|value| value.split(','))
                .any(|value| value.trim().eq_ignore_ascii_case(member)),
            format!("{member} in {name}"),
        ),
    };
    as_expected.then_some(()).ok_or(format!("expected {what}"))
}

/// Returns the bytes as Markdown code: `⏎` for CRLF, without the empty line at the end, long repetitions shortened.
fn readable(sent: &str) -> String {
    let mut text = String::new();
    let sent = sent.strip_suffix("\r\n\r\n").unwrap_or(sent);
    let mut rest = sent;
    while let Some(c) = rest.chars().next() {
        let count = rest.chars().take_while(|other| *other == c).count();
        if count >= 20 {
            let _ = write!(text, "{c}...{c} ({count})");
            rest = &rest[count * c.len_utf8()..];
        } else if let Some(after) = rest.strip_prefix("\r\n") {
            text += " ⏎ ";
            rest = after;
        } else {
            match c {
                ' '..='~' => text.push(c),
                _ => {
                    let _ = write!(text, "\\x{:02x}", u32::from(c));
                }
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    format!("`{}`", text.trim().replace('|', "\\|"))
}
