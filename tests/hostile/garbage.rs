//! Bytes that are not a request, or an odd one.

use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::{
    Fault, PROBE_MAX, are_as_before, ends_well, fetch_status, threads_and_descriptors, turn, write_row,
};
use support::access_log::Durations;
use support::server::Server;
use support::wait_for;

/// Returns names, the bytes to send, and the allowed statuses. Status 0 means that the connection may close or stay
/// silent.
fn pieces() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut pieces: Vec<(&str, Vec<u8>, &[u16])> = (0..200)
        .map(|_| {
            let len = random.usize(1..2_000);
            let mut bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            bytes.extend(b"\r\n\r\n");
            ("random bytes", bytes, &[0, 400][..])
        })
        .collect();
    let tls = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03TLS client hello\r\n\r\n";
    pieces.extend([
        ("a TLS hello", tls.to_vec(), &[0, 400][..]),
        (
            "HTTP/0.9 in the request line",
            b"GET /healthz HTTP/0.9\r\n\r\n".to_vec(),
            &[200],
        ),
        ("HTTP/0.9 without a version", b"GET /healthz\r\n".to_vec(), &[400]),
        ("HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(), &[200]),
        ("an unknown version", b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(), &[400]),
        (
            "the absolute form",
            b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            &[200],
        ),
        (
            "the asterisk form",
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            &[204],
        ),
        (
            "the authority form",
            b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            &[405],
        ),
        (
            "bare line feeds",
            b"GET /healthz HTTP/1.1\nHost: x\n\n".to_vec(),
            &[0, 400],
        ),
        (
            "a header that is not ASCII",
            b"GET /healthz HTTP/1.1\r\nHost: test\r\nX: \xff\xfe\r\n\r\n".to_vec(),
            &[0, 400],
        ),
        (
            "a header without a colon",
            b"GET /healthz HTTP/1.1\r\nHost: test\r\nnonsense\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "a space before the colon",
            b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length : 5\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "an unknown expectation",
            b"GET / HTTP/1.1\r\nHost: test\r\nExpect: miracles\r\n\r\n".to_vec(),
            &[417],
        ),
        (
            "an unknown method",
            b"BREW /healthz HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(),
            &[405],
        ),
        (
            "a target of 8 KiB",
            format!("GET /{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(8_192)).into_bytes(),
            &[404],
        ),
        (
            "an Accept header of 8 KiB",
            format!(
                "GET /metrics HTTP/1.1\r\nHost: test\r\nAccept: {}\r\n\r\n",
                "text/plain;q=0.1,".repeat(482)
            )
            .into_bytes(),
            &[200],
        ),
        (
            "1,000 headers",
            format!(
                "GET /healthz HTTP/1.1\r\nHost: test\r\n{}\r\n",
                "X-Y: z\r\n".repeat(1_000)
            )
            .into_bytes(),
            &[200],
        ),
    ]);
    for query in [
        "delay=-1s",
        "delay=NaN",
        "delay=inf",
        "delay=1e999s",
        "delay=99999999999999999999s",
        "delay=61s",
        "delay=",
        "delay=1ms&delay=1ms",
        "status=0",
        "status=-200",
        "status=999",
        "status=99999999999",
        "status=200&status=200",
        "status=",
        "unknown=1",
        "%00",
        "delay=%3",
        "=",
        "\x7f",
    ] {
        pieces.push((
            "a wrong query parameter",
            format!("GET /?{query} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            &[400],
        ));
    }
    pieces
}

#[test]
fn garbage_is_refused_and_leaks_nothing() {
    Fault {
        name: "garbage",
        did: "random bytes, TLS hellos, HTTP/0.9, odd targets, bare line feeds, bytes that are not ASCII, 8 KiB of Accept, wrong parameters",
        resident_max_mib: 40,
        flags: &[],
    }
    .survived(|server| {
        let pieces = pieces();
        for (name, bytes, wanted) in &pieces {
            let mut crowd = Crowd::connect(server.address, 1);
            crowd.send(bytes);
            if wanted[0] == 0 {
                // There may be nothing to wait for.
                crowd.run_for(Duration::from_millis(10), true);
            } else {
                crowd.until_all(&format!("answered ({name})"), |member| member.has(1) || member.closed);
            }
            let status = crowd.members[0].statuses().first().copied().unwrap_or(0);
            assert!(
                wanted.contains(&status),
                "{name}: {status}, {:?}",
                String::from_utf8_lossy(&crowd.members[0].received)
            );
        }
        format!("{} pieces: 400, 404, 405 or 417 to a request, otherwise closed", pieces.len())
    });
}

/// How soon connections whose head does not arrive have cost nothing: the guard closes them after 10 s, and tiny_http keeps
/// idle threads for 5 s.
const HEADS_RELEASED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn an_http2_preface_costs_what_an_unfinished_head_costs() {
    let _turn = turn();
    let server = Server::start(&[]);
    server.get("/healthz");
    let before = threads_and_descriptors(&server);
    let mut prefaces = Crowd::connect(server.address, 300);
    let begun = Instant::now();
    prefaces.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wait_for(
        &format!("threads and descriptors to be as before, {before:?}"),
        || {
            prefaces.run_for(Duration::from_millis(100), true);
            threads_and_descriptors(&server)
        },
        |now| are_as_before(*now, before),
    );
    let took = begun.elapsed();
    assert!(took <= HEADS_RELEASED_WITHIN, "released after {took:?}");
    assert_eq!(fetch_status(server.address, "/healthz").unwrap(), 200);
    ends_well(server);
}

const STUCK: &str = "httpserver_connections_stuck";

/// The memory that one such connection may cost, in bytes.
const HELD_MAX: u64 = 48 * 1024;

#[test]
fn what_tiny_http_never_releases_is_small_and_does_no_harm() {
    let _turn = turn();
    let server = Server::start(&[]);
    server.get("/healthz");
    let (resident_before, before) = (server.resident_bytes(), threads_and_descriptors(&server));
    // The thread of each of these deadlocks with itself, and shutting down its socket does not wake it.
    let mut versions = Crowd::connect(server.address, 500);
    versions.send(b"GET / HTTP/2.0\r\nHost: test\r\n\r\n");
    // A body that is larger than the address space cannot be released either.
    let mut bodies = Crowd::connect(server.address, 500);
    bodies.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999\r\n\r\n");
    bodies.until_all("closed", |member| member.closed);
    assert!(bodies.members.iter().all(|member| member.statuses() == [413]));
    versions.run_for(Duration::from_secs(1), true);
    let probes: Durations = (0..100)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(fetch_status(server.address, "/healthz").unwrap(), 200);
            begun.elapsed()
        })
        .collect();
    let worst = probes.quantile(1.0) * 1e3;
    let held = (server.resident_bytes().saturating_sub(resident_before)) / 1_000;
    assert!(held <= HELD_MAX, "{held} bytes each");
    let now = threads_and_descriptors(&server);
    let (threads, descriptors) = (now.0 - before.0, now.1 - before.1);
    assert!(threads <= 1_030 && descriptors <= 2_030, "{threads}, {descriptors}");
    // Half of them before their clients leave, and half after.
    let closed = r#"httpserver_connections_closed_total{reason="slow_head"}"#;
    versions.until_all("closed", |member| member.closed);
    let slow = server.metric(closed);
    drop(bodies);
    wait_for(
        "all to count as stuck",
        || server.metric(STUCK),
        |stuck| *stuck == Some(1_000.0),
    );
    assert_eq!(server.metric(closed), slow, "each is closed once");
    drop(versions);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.metric(STUCK), Some(1_000.0));
    assert_eq!(server.get("/?delay=10ms").status, 200);
    ends_well(server);
    write_row(&format!(
        "| connections that are never released | 500 requests of `HTTP/2.0`, 500 bodies of 90 TiB | {threads} threads and {descriptors} descriptors held, {} KiB each | {} of 100 within 100 ms, worst {worst:.0} | {} MiB | never |",
        held >> 10,
        probes.at_most(PROBE_MAX.as_secs_f64()),
        (resident_before + held * 1_000) >> 20
    ));
}
