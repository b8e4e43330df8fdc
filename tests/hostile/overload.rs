//! More requests than may be in flight.

use std::time::Instant;

use crate::crowd::Crowd;
use crate::fault::Fault;
use support::wait_for;

#[test]
fn requests_past_the_limit_are_refused_at_once_and_counted() {
    Fault {
        name: "overload",
        did: "1,000 requests at once, `--max-in-flight` 300",
        resident_max_mib: 60,
        flags: &["--max-in-flight", "300", "--delay-min", "10s", "--delay-max", "10s"],
    }
    .survived(|server| {
        let start = Instant::now();
        let mut crowd = Crowd::connect(server.address, 1_000);
        crowd.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        crowd.until("refused", 700, |member| member.has(1));
        let refused_after = start.elapsed();
        let early = crowd.count(|member| member.statuses() == [200]);
        assert_eq!(early, 0, "the first admitted request was due before the last refusal");
        crowd.until_all("answered", |member| member.has(1));
        let refused: Vec<_> = crowd
            .members
            .iter()
            .filter(|member| member.statuses() == [503])
            .collect();
        let answered = crowd.count(|member| member.statuses() == [200]);
        assert_eq!((answered, refused.len()), (300, 700));
        for member in refused {
            let head = String::from_utf8_lossy(&member.received);
            assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
        }
        let counted = |status| {
            server.metric(&format!(
                "http_request_duration_seconds_count{{method=\"GET\",path=\"/\",status=\"{status}\"}}"
            ))
        };
        wait_for(
            "the last response to be recorded",
            || (counted(200), counted(503)),
            |counted| *counted == (Some(300.0), Some(700.0)),
        );
        format!(
            "300 answered, 700 refused with 503 within {:.0} ms of the first connection",
            refused_after.as_secs_f64() * 1e3
        )
    });
}
