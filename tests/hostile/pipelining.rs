//! Requests sent without waiting for responses.

use std::time::Duration;

use httpserver::server::connections::CONNECTION_IN_FLIGHT_MAX;

use crate::crowd::Crowd;
use crate::fault::Fault;

#[test]
fn pipelined_requests_are_limited_and_answered_in_order() {
    Fault {
        name: "pipelining, one connection",
        did: "200, then 5,000 delayed requests on one connection",
        resident_max_mib: 60,
        flags: &[],
    }
    .survived(|server| {
        // The statuses show the order.
        let statuses = [200, 201, 202, 400, 401, 403, 404];
        let pipelined = |count| {
            let mut crowd = Crowd::connect(server.address, 1);
            for status in statuses.iter().cycle().take(count) {
                crowd.send(format!("GET /?delay=1s&status={status} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
            }
            crowd.until_all("closed", |member| member.closed);
            crowd.members[0].statuses().to_vec()
        };
        let admitted = statuses.iter().cycle().take(CONNECTION_IN_FLIGHT_MAX);
        assert!(pipelined(200).iter().eq(admitted.chain(&[503])));
        // More than 64 KiB without a response: closed at once, whatever was admitted.
        let seen = pipelined(5_000);
        let answered = seen.len().min(CONNECTION_IN_FLIGHT_MAX);
        assert!(
            seen[..answered].iter().eq(statuses.iter().cycle().take(answered)),
            "{seen:?}"
        );
        assert!(matches!(seen[answered..], [] | [503]), "{seen:?}");
        format!("of 200, {CONNECTION_IN_FLIGHT_MAX} responses in order, then 503 and closed; of 5,000, closed after {answered}")
    });
}

#[test]
fn pipelined_scrapes_do_not_delay_others() {
    Fault {
        name: "pipelining, 100 connections",
        did: "a delayed request and 300 scrapes behind it on each of 100 connections",
        resident_max_mib: 100,
        flags: &[],
    }
    .survived(|server| {
        let mut crowd = Crowd::connect(server.address, 100);
        crowd.send(b"GET /?status=202 HTTP/1.1\r\nHost: test\r\n\r\n");
        crowd.send(&b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(300));
        // The last response closes the connection, also that of a client with which the server keeps up.
        crowd.send(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        crowd.until_all("closed", |member| member.closed);
        let mut answers = 0;
        for member in &crowd.members {
            let statuses = member.statuses();
            answers += statuses.len();
            let statuses = &statuses[..statuses.len().min(CONNECTION_IN_FLIGHT_MAX)];
            if let Some((first, behind)) = statuses.split_first() {
                assert_eq!(*first, 202);
                assert!(behind.iter().all(|status| *status == 200), "{statuses:?}");
            }
        }
        assert!(answers > 0, "nothing was answered before the connections were closed");
        format!(
            "{answers} responses in order, at most {CONNECTION_IN_FLIGHT_MAX} and a 503 in flight for each connection"
        )
    });
}

#[test]
fn a_flood_is_closed_each_time_it_starts_again() {
    Fault {
        name: "endless pipelining",
        did: "100 connections send 5,000 requests each at once, read nothing and reconnect, three times",
        resident_max_mib: 400,
        flags: &[],
    }
    .survived(|server| {
        for _ in 0..3 {
            let mut crowd = Crowd::connect(server.address, 100);
            crowd.send(&b"GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(5_000));
            crowd.run_for(Duration::from_secs(3), false);
            crowd.until_all("closed", |member| member.closed);
        }
        "all closed".to_owned()
    });
}
