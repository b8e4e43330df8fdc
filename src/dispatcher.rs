//! The dispatcher: takes requests off tiny_http, decides what each is answered, and puts it on the schedule.
//!
//! It never writes to a socket and never waits but for the next request. One dispatcher serves one `tiny_http::Server`,
//! so that requests of a connection reach the schedule in their order.

use std::borrow::Cow;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Request, Server};

use crate::accept_news::AcceptNews;
use crate::delay::{Delay, Distribution};
use crate::endpoint::{self, Answer};
use crate::metrics::{Labels, Status, TraceContext};
use crate::panics;
use crate::pending::{Channel, Pending, Waiting};
use crate::responders::Responders;
use crate::response::Persistence;
use crate::schedule::{Refused, Schedule, Scheduled};
use crate::watch::Progress;

/// How long the dispatcher of a server whose accept thread has ended waits for a request of the connections that are left.
/// Longer than any connection may be idle.
const LAST_REQUEST_AFTER: Duration = Duration::from_secs(35);

/// What every dispatcher needs.
pub struct Dispatch {
    /// Where requests wait.
    pub schedule: Arc<Schedule<Waiting>>,
    /// Who answers them.
    pub responders: Arc<Responders>,
    /// How far the newest dispatcher is, for the watch.
    pub progress: Arc<Progress>,
    /// True from the first signal on.
    pub draining: Arc<AtomicBool>,
    /// The distribution of the delay.
    pub delay: Distribution,
    /// `--error-rate`
    pub error_rate: f64,
}

/// The dispatcher of one `tiny_http::Server`.
struct Dispatcher {
    dispatch: Arc<Dispatch>,
    news: Arc<AcceptNews>,
    /// The number of its server.
    server: u64,
    delay: Delay,
}

impl Dispatch {
    /// Starts a dispatcher for `server`. It ends some time after the server's accept thread has.
    ///
    /// # Errors
    ///
    /// As the system's, where no thread can be had.
    pub fn start(self: &Arc<Self>, server: Server, news: &Arc<AcceptNews>) -> io::Result<()> {
        let mut dispatcher = Dispatcher {
            dispatch: Arc::clone(self),
            news: Arc::clone(news),
            server: news.number_server(),
            delay: Delay::new(self.delay.clone()),
        };
        panics::spawn_vital("dispatcher", move || dispatcher.run(&server)).map(drop)
    }
}

impl Dispatcher {
    fn run(&mut self, server: &Server) {
        while let Ok(request) = self.next(server) {
            self.take(request);
        }
        self.dispatch.progress.waits();
        // The accept thread has ended. Its connections live on, and each is answered until the last is silent.
        self.news.accept_ended(self.server);
        while let Ok(Some(request)) = server.recv_timeout(LAST_REQUEST_AFTER) {
            self.take(request);
        }
    }

    fn next(&self, server: &Server) -> io::Result<Request> {
        if let Some(request) = server.try_recv()? {
            return Ok(request);
        }
        self.dispatch.progress.waits();
        let next = server.recv();
        self.dispatch.progress.goes_on();
        next
    }

    fn take(&mut self, request: Request) {
        let arrived = Instant::now();
        self.news.request_arrived();
        // A TCP listener's requests always have a peer.
        let Some(&peer) = request.remote_addr() else {
            return;
        };
        let draining = self.dispatch.draining.load(Ordering::Relaxed);
        let (path, answer) = endpoint::find(&request, !draining);
        let (answer, status, wait) = self.decide(answer);
        let unread = matches!(answer, Answer::Final(..));
        let delayed = matches!(answer, Answer::Delayed(_));
        let pending = Box::new(Pending {
            labels: Labels {
                method: endpoint::method(&request),
                path,
                status,
            },
            answer,
            arrived,
            peer,
            persistence: persistence(&request),
            trace: trace(&request),
            channel: if unread {
                Channel::Unread(ManuallyDrop::new(Box::new(request)))
            } else {
                Channel::Writer(request.into_writer())
            },
        });
        let scheduled = Scheduled {
            peer,
            deadline: arrived + wait,
            delayed,
            request: pending,
        };
        let pushed = if unread {
            self.dispatch.schedule.push_last(scheduled, arrived).map(|()| false)
        } else {
            self.dispatch.schedule.push(scheduled, arrived)
        };
        match pushed {
            Ok(false) => {}
            Ok(true) => self.dispatch.responders.relieve(arrived),
            Err(refused) => self.refuse(refused),
        }
    }

    /// Draws what a delayed answer leaves to chance; tells the status and the time to wait.
    fn decide(&mut self, answer: Answer) -> (Answer, Status, Duration) {
        match answer {
            Answer::Delayed(overrides) => {
                let wait = overrides.delay.unwrap_or_else(|| self.delay.draw());
                let status = overrides.status.unwrap_or_else(|| {
                    if self.delay.draw_error(self.dispatch.error_rate) {
                        Status::INTERNAL_SERVER_ERROR
                    } else {
                        Status::OK
                    }
                });
                (answer, status, wait)
            }
            Answer::Line(status, _) | Answer::Final(status, _) => (answer, status, Duration::ZERO),
            Answer::Metrics(_) | Answer::Ui => (answer, Status::OK, Duration::ZERO),
        }
    }

    fn refuse(&self, refused: Refused<Waiting>) {
        let schedule = &self.dispatch.schedule;
        let now = Instant::now();
        let at_once = |mut pending: Waiting, answer| {
            pending.answer = answer;
            pending.labels.status = Status::SERVICE_UNAVAILABLE;
            if matches!(pending.answer, Answer::Final(..)) {
                pending.persistence = Persistence::Close;
            }
            Scheduled {
                peer: pending.peer,
                deadline: now,
                delayed: false,
                request: pending,
            }
        };
        let full = match refused {
            Refused::Overload(pending) => {
                let line = Cow::Borrowed("as many requests wait as --max-in-flight allows\n");
                let answer = Answer::Line(Status::SERVICE_UNAVAILABLE, line);
                match schedule.push(at_once(pending, answer), now) {
                    Err(Refused::ConnectionFull(pending)) => pending,
                    _ => return,
                }
            }
            Refused::ConnectionFull(pending) => pending,
            // Held in place of an older one, whose connection's last answer is given, or will be.
            Refused::ConnectionClosed(_) => return,
        };
        let line = "too many requests of this connection wait for their answer\n";
        let answer = Answer::Final(Status::SERVICE_UNAVAILABLE, line);
        // Refused only where the connection is closing already.
        let _ = schedule.push_last(at_once(full, answer), now);
    }
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request
        .headers()
        .iter()
        .find(|header| header.field.equiv(name))
        .map(|header| header.value.as_str())
}

fn trace(request: &Request) -> Option<TraceContext> {
    let lines = request
        .headers()
        .iter()
        .filter(|header| header.field.equiv("traceparent"));
    TraceContext::from_headers(lines.map(|header| header.value.as_str()))
}

/// What becomes of the connection, by the rule that tiny_http goes by when it reads on or not.
fn persistence(request: &Request) -> Persistence {
    let asked = header(request, "Connection").map(str::to_ascii_lowercase);
    let asked = asked.as_deref().unwrap_or("");
    let http_1_0 = *request.http_version() <= HTTPVersion(1, 0);
    if asked.contains("close") || asked.contains("upgrade") {
        Persistence::Close
    } else if !http_1_0 {
        Persistence::Implied
    } else if asked.contains("keep-alive") {
        Persistence::Told
    } else {
        Persistence::Close
    }
}
