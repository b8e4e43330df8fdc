//! The flags, their environment variables, `--help`, and what the server says at its start.

use std::process::Command;

use support::client::Client;
use support::server::{Server, command, run};

const FLAGS: [&str; 12] = [
    "listen",
    "delay-min",
    "delay-max",
    "delay-quantiles",
    "error-rate",
    "buckets",
    "max-in-flight",
    "concurrency",
    "drain-timeout",
    "idle-timeout",
    "requests-per-connection",
    "access-log",
];

/// Returns the environment variable of a flag.
fn variable(flag: &str) -> String {
    format!("HTTPSERVER_{}", flag.to_uppercase().replace('-', "_"))
}

/// Runs a command that writes nothing to standard output. Returns its status code and what it writes to standard error.
fn refused(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("the binary runs");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{command:?}");
    (output.status.code(), stderr)
}

#[test]
fn flags_override_environment_variables() {
    let mut environment = command(&["--listen", "127.0.0.1:0", "--delay-max", "40ms"]);
    environment
        .env("HTTPSERVER_DELAY_MIN", "30ms")
        .env("HTTPSERVER_DELAY_MAX", "1h");
    let server = Server::spawn(environment);
    assert!(
        server.start_line.ends_with("answering after 30ms to 40ms"),
        "{}",
        server.start_line
    );
    assert!(server.start_line.starts_with(&format!(
        "httpserver: version {} listening on 127.0.0.1:",
        env!("CARGO_PKG_VERSION")
    )));
    // With delays of up to 1h, these would take five hours.
    let mut client = server.connect();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn an_invalid_flag_gets_an_error_that_names_it_its_value_and_what_is_allowed_and_status_2() {
    let cases: [(&[&str], &[&str]); 26] = [
        (&["--listen", "nowhere"], &["--listen", "'nowhere'", "127.0.0.1:19004"]),
        (&["--listen", "localhost:8080"], &["'localhost:8080'", "as in :19004"]),
        (&["--listen", ":65536"], &["':65536'"]),
        (&["--listen", ":::80"], &["':::80'"]),
        (&["--delay-min", "fast"], &["--delay-min", "'fast'", "0s to 1h"]),
        (&["--delay-min=-1s"], &["--delay-min", "'-1s'", "0s to 1h"]),
        (&["--delay-max", "2h"], &["--delay-max", "'2h'", "0s to 1h"]),
        (&["--delay-min", "3s"], &["--delay-min is 3s", "0s to --delay-max, 2s"]),
        (
            &["--delay-quantiles", "half"],
            &["--delay-quantiles", "'half'", "0.5=80ms"],
        ),
        (
            &["--delay-quantiles", "0.5=3s"],
            &["--delay-quantiles", "--delay-max, 2s"],
        ),
        (
            &["--requests-per-connection", "-1"],
            &["--requests-per-connection", "'-1'", "0 to 1000000000"],
        ),
        (&["--error-rate", "1.5"], &["--error-rate", "'1.5'", "0 to 1"]),
        (&["--error-rate", "NaN"], &["--error-rate", "'NaN'", "0 to 1"]),
        (&["--error-rate", "-0.1"], &["--error-rate", "'-0.1'", "0 to 1"]),
        (&["--buckets", "2,1"], &["--buckets", "'2,1'", "increasing"]),
        (&["--buckets", ""], &["--buckets"]),
        (&["--max-in-flight", "0"], &["--max-in-flight", "'0'", "1 to 1000000"]),
        (&["--concurrency", "-1"], &["--concurrency", "'-1'", "0 to 1000000"]),
        (&["--concurrency", "1000001"], &["'1000001'", "0 to 1000000"]),
        (&["--drain-timeout", "soon"], &["--drain-timeout", "'soon'", "0s to 1h"]),
        (&["--idle-timeout", "0s"], &["--idle-timeout", "'0s'", "1s to 1h"]),
        (&["--idle-timeout", "2h"], &["--idle-timeout", "'2h'", "1s to 1h"]),
        (
            &["--access-log", "maybe"],
            &["--access-log", "'maybe'", "true and false"],
        ),
        (&["--delay-min"], &["--delay-min", "value"]),
        (
            &["--delay-min", "1s", "--delay-min", "1s"],
            &["--delay-min", "multiple times"],
        ),
        (&["--colour"], &["--colour", "--help"]),
    ];
    for (flags, parts) in cases {
        let (code, line) = refused(command(flags));
        assert_eq!(code, Some(2), "{flags:?}: {line}");
        for part in parts {
            assert!(line.contains(part), "{flags:?}: {part} in {line}");
        }
    }
}

#[test]
fn an_unavailable_address_gets_one_line_and_status_1() {
    let server = Server::start(&[]);
    for address in [server.address.to_string(), "192.0.2.1:19004".to_owned()] {
        let (code, line) = refused(command(&["--listen", &address]));
        assert_eq!((code, line.lines().count()), (Some(1), 1), "{line}");
        assert!(line.contains(&format!("cannot listen on {address}: ")), "{line}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in FLAGS {
        assert!(
            text.contains(&format!("--{flag} ")) && text.contains(&variable(flag)),
            "{flag}: {text}"
        );
    }
    let version = run(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("httpserver {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn buckets_below_the_longest_delay_get_a_warning() {
    let server = Server::start(&["--buckets", "exponential:0.1,1.5,5"]);
    let stderr = server.stderr();
    let warning = stderr.lines().next().unwrap();
    assert!(
        warning.contains("warning: ") && warning.contains("0.50625 s") && warning.contains("2 s"),
        "{stderr}"
    );
    // It may warn of the limits that the machine sets.
    assert!(!Server::start(&[]).stderr().contains("--buckets"));
}

#[test]
fn the_flag_sets_the_buckets() {
    let server = Server::start(&["--buckets", "linear:0.25,0.25,8"]);
    let exposition = server.metrics();
    assert!(
        exposition.contains("le=\"0.25\"") && exposition.contains("le=\"2\"") && !exposition.contains("le=\"2.5\""),
        "{exposition}"
    );
}

#[test]
fn an_ipv6_wildcard_address_and_a_port_alone_serve_ipv4_too() {
    for listen in ["[::]:0", ":0"] {
        let server = Server::spawn(command(&["--listen", listen, "--delay-max", "1ms"]));
        let port = server.address.port();
        for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            let response = Client::connect(address.parse().unwrap()).get("/");
            assert_eq!(response.status, 200, "{listen}, {address}");
        }
    }
}

#[test]
fn an_empty_variable_means_unset() {
    let mut empty = command(&["--listen", "127.0.0.1:0"]);
    for flag in FLAGS {
        empty.env(variable(flag), "");
    }
    let from_start_line = |server: &Server| server.start_line.split_once(", ").unwrap().1.to_owned();
    let (empty, unset) = (Server::spawn(empty), Server::start(&[]));
    assert_eq!(from_start_line(&empty), from_start_line(&unset));
    let bounds = |server: &Server| server.metrics().matches("le=").count();
    assert_eq!(bounds(&empty), bounds(&unset));
}

#[test]
fn an_invalid_variable_gets_the_error_of_its_flag() {
    for (flag, value) in [
        ("listen", "nowhere"),
        ("delay-min", "3s"),
        ("delay-max", "2h"),
        ("error-rate", "2"),
        ("buckets", "2,1"),
        ("max-in-flight", "0"),
        ("idle-timeout", "0s"),
        ("access-log", "maybe"),
    ] {
        let mut wrong = command(&[]);
        wrong.env(variable(flag), value);
        let (code, error) = refused(wrong);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(&format!("--{flag}")) && error.contains(value), "{error}");
    }
}
