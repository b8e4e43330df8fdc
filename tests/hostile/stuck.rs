//! Connections that tiny_http never releases: they are counted, and `/healthz` asks for a restart before they have taken everything.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::descriptors::limited;
use crate::fault::{ends_well, turn, write_row};
use support::client::connect_from;
use support::server::Server;
use support::{PATIENCE, wait_for};

/// The limit on descriptors. Of these, 32 stuck connections hold a quarter, and 33 more than that.
const DESCRIPTORS: usize = 256;
const TOLERATED: usize = DESCRIPTORS / 4 / 2;

/// Answered at once. What follows it in the same segment has then been read by tiny_http, and is parsed whatever the client does.
const FIRST: &str = "GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n";

/// These block tiny_http's thread of the connection for good.
const BLOCKING: [&str; 2] = [
    "GET / HTTP/2.0\r\nHost: test\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999\r\n\r\n",
];

/// These wait as long as a request may.
const WAITING: [&str; 2] = [
    "GET /?delay=60s HTTP/1.1\r\nHost: test\r\n\r\n",
    // tiny_http's thread waits for the body, which is refused after the response to the first.
    "GET /?delay=60s HTTP/1.1\r\nHost: test\r\n\r\nPOST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000\r\n\r\n",
];

#[derive(Clone, Copy)]
enum Client {
    Stays,
    Closes,
    Resets,
}

const CLIENTS: [Client; 3] = [Client::Stays, Client::Closes, Client::Resets];

/// Sends requests on a connection of its own, and does what the client does next. Returns the connection if the client stays.
///
/// Each connects from an address of its own, `number`: the port of one that resets is free again, and whoever got it would wait behind its
/// requests.
fn send(number: u8, address: SocketAddr, requests: &str, client: Client) -> Option<TcpStream> {
    let mut stream = connect_from(Ipv4Addr::new(127, 0, 1, number), address);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{FIRST}{requests}").as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0, "the first is answered");
    match client {
        Client::Stays => return Some(stream),
        Client::Closes => {}
        Client::Resets => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
    }
    None
}

#[test]
fn stuck_connections_are_counted_and_health_fails_once_they_hold_more_than_a_quarter() {
    let _turn = turn();
    let mut command = limited(&format!("-n {DESCRIPTORS}"));
    command.args(["--idle-timeout", "5s", "--drain-timeout", "1s"]);
    let server = Server::spawn(command);
    let stuck = || server.metric("httpserver_connections_stuck");
    assert_eq!(stuck(), Some(0.0));

    // Connections whose clients have gone while their requests wait are not stuck: they are released with the response.
    let mut numbers = 1..;
    let mut send = |requests, client| send(numbers.next().unwrap(), server.address, requests, client);
    let mut stay = Vec::new();
    for requests in WAITING {
        for client in CLIENTS {
            stay.push(send(requests, client));
        }
    }
    let begun = Instant::now();
    for n in 0..TOLERATED {
        let (requests, client) = (BLOCKING[n % BLOCKING.len()], CLIENTS[n % CLIENTS.len()]);
        stay.push(send(requests, client));
    }
    wait_for("all of them to be counted", stuck, |count| {
        *count >= Some(TOLERATED as f64)
    });
    let counted = begun.elapsed();
    // Only to see that no more are counted: the waiting ones were left before.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stuck(), Some(TOLERATED as f64));
    let in_flight = server.metric("http_requests_in_flight");
    assert!(
        in_flight > Some((WAITING.len() * CLIENTS.len()) as f64),
        "{in_flight:?}"
    );
    assert_eq!(server.get("/healthz").status, 200);
    // Each is closed once, although it stays open.
    let closed = server.metric("httpserver_connections_closed_total{reason=\"idle\"}");
    assert!(closed <= Some(TOLERATED as f64), "{closed:?}");

    stay.push(send(BLOCKING[0], Client::Resets));
    let unhealthy = wait_for(
        "health to fail",
        || server.get("/healthz"),
        |health| health.status == 503,
    );
    let (stuck, held) = (TOLERATED + 1, 2 * (TOLERATED + 1));
    let why = format!(
        "{stuck} stuck connections hold {held} of at most {DESCRIPTORS} descriptors, and only a restart releases them\n"
    );
    assert_eq!(unhealthy.text(), why);
    wait_for(
        "the same on standard error",
        || server.stderr(),
        |stderr| stderr.contains(&why),
    );
    assert_eq!(server.get("/readyz").status, 200);
    ends_well(server);
    write_row(&format!(
        "| stuck connections | {stuck} that are never released, at a limit of {DESCRIPTORS} descriptors; their clients stay, close or reset | counted within {:.0} s; then `/healthz` answers 503 | - | - | with the restart |",
        counted.as_secs_f64()
    ));
}
