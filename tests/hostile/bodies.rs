//! Request bodies, which no endpoint accepts: the server refuses them, and neither waits nor allocates for them.

use std::time::Duration;

use crate::crowd::Crowd;
use crate::fault::Fault;

/// The bodies, each sent on its own connection. The response is 400 or 413, and then the connection closes.
const BODIES: [(&str, &[u8]); 14] = [
    ("of the largest u64", b"Content-Length: 18446744073709551615\r\n\r\n"),
    (
        "larger than that",
        b"Content-Length: 99999999999999999999999999\r\n\r\n",
    ),
    ("larger than memory", b"Content-Length: 99999999999999\r\n\r\n"),
    ("large", b"Content-Length: 1073741824\r\n\r\n"),
    ("just too long to be buffered", b"Content-Length: 1025\r\n\r\n"),
    ("negative", b"Content-Length: -1\r\n\r\n"),
    ("signed", b"Content-Length: +5\r\n\r\nabcde"),
    ("repeated", b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"),
    ("contradictory", b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
    ("chunked", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    (
        "chunked and malformed",
        b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
    ),
    (
        "chunked without an end",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ),
    (
        "chunked with a length",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ),
    (
        "waiting for 100 Continue",
        b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ),
];

#[test]
fn every_kind_of_body_is_refused_and_its_connection_closed() {
    Fault {
        name: "bodies",
        did: "14 kinds, from 5 bytes to 2^64 and more: negative, repeated, chunked, malformed, announced",
        resident_max_mib: 40,
        flags: &[],
    }
    .survived(|server| {
        for (name, body) in BODIES {
            let mut crowd = Crowd::connect(server.address, 1);
            crowd.send(b"POST / HTTP/1.1\r\nHost: test\r\n");
            crowd.send(body);
            crowd.until_all(&format!("closed ({name})"), |member| member.closed);
            let statuses = crowd.members[0].statuses();
            assert!(matches!(statuses, [400 | 413]), "{name}: {statuses:?}");
        }
        "400 or 413, then closed".to_owned()
    });
}

#[test]
fn a_body_that_never_arrives_holds_no_resources() {
    Fault {
        name: "bodies that never arrive",
        did: "200 connections announce 1 MB and send none of it",
        resident_max_mib: 40,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 200);
        crowd.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n");
        crowd.until_all("closed", |member| member.closed);
        assert!(crowd.members.iter().all(|member| member.statuses() == [413]));
        "413 for all, then closed".to_owned()
    });
}

#[test]
fn a_request_hidden_in_a_refused_body_is_never_answered() {
    Fault {
        name: "hidden requests",
        did: "a request inside a chunked body, and one behind each kind of refused body",
        resident_max_mib: 40,
        flags: &[],
    }
    .survived(|server| {
        let hidden = "GET /ui HTTP/1.1\r\nHost: test\r\n\r\n";
        let chunked = format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
            hidden.len()
        );
        let mut bodies: Vec<Vec<u8>> = BODIES.iter().map(|(_, body)| body.to_vec()).collect();
        bodies.push(chunked.into_bytes());
        bodies.push(b"Transfer-Encoding: chunked\r\n\r\n".to_vec());
        bodies.push([b"Content-Length: 2000\r\n\r\n".to_vec(), vec![b'x'; 2_000]].concat());
        for body in bodies {
            let mut crowd = Crowd::connect(server.address, 1);
            crowd.send(b"POST / HTTP/1.1\r\nHost: test\r\n");
            crowd.send(&body);
            crowd.send(hidden.as_bytes());
            crowd.until_all("closed", |member| member.closed);
            let statuses = crowd.members[0].statuses();
            assert!(statuses.len() <= 1, "{statuses:?}");
        }
        // tiny_http parses what follows a released body after the connection has closed.
        std::thread::sleep(Duration::from_secs(1));
        assert!(
            !server.metrics().contains("path=\"/ui\""),
            "a hidden request was answered"
        );
        "none answered, none counted".to_owned()
    });
}

#[test]
fn a_huge_body_behind_a_refused_request_does_no_harm() {
    Fault {
        name: "second body behind a refused request",
        did: "90 TiB announced behind a refused body, behind 200 pipelined requests, behind unread responses",
        resident_max_mib: 40,
        flags: &[],
    }
    .survived(|server| {
        let huge = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999\r\n\r\n";
        let long = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000\r\n\r\n";
        for last in [huge, long] {
            let firsts = [
                format!("{long}{}", "x".repeat(2_000)),
                "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
                "GET /?delay=500ms HTTP/1.1\r\nHost: test\r\n\r\n".repeat(200),
            ];
            for first in firsts {
                let mut crowd = Crowd::connect(server.address, 1);
                crowd.send(format!("{first}{last}").as_bytes());
                crowd.until_all("closed", |member| member.closed);
                let statuses = crowd.members[0].statuses();
                let (refused, answered) = statuses.split_last().expect("a response");
                assert!(matches!(refused, 413 | 503), "{statuses:?}");
                assert!(
                    answered.iter().all(|status| *status == 200),
                    "out of order: {statuses:?}"
                );
            }
        }
        "the responses due, then 413 or 503, then closed".to_owned()
    });
}
