//! A panic in a vital thread ends the process with a message. A panic in a connection's thread does not.

use std::process::{Command, Output};
use std::thread;

use httpserver::server::panics;
use support::PATIENCE;

/// Runs one of the tests below in its own process, as the victim.
fn victim(test: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("panics::{test}"), "--exact", "--nocapture"])
        .env("PANIC_VICTIM", "1")
        .output()
        .unwrap()
}

fn is_victim() -> bool {
    std::env::var_os("PANIC_VICTIM").is_some()
}

#[test]
fn a_panic_in_a_vital_thread_ends_the_process_with_a_message() {
    if is_victim() {
        panics::install();
        panics::spawn_vital("worker", || panic!("the test's panic")).unwrap();
        // The panic ends this process. Otherwise it ends here, with status 0.
        thread::sleep(PATIENCE);
        return;
    }
    let output = victim("a_panic_in_a_vital_thread_ends_the_process_with_a_message");
    assert_eq!(output.status.code(), Some(70));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("a part of the server panicked") && stderr.contains("the test's panic"),
        "{stderr}"
    );
}

#[test]
fn panics_in_other_threads_are_reported_once() {
    if is_victim() {
        panics::install();
        for _ in 0..100 {
            let thread = thread::Builder::new().spawn(|| panic!("a client's reset")).unwrap();
            assert!(thread.join().is_err());
        }
        return;
    }
    let output = victim("panics_in_other_threads_are_reported_once");
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    let reports: Vec<&str> = stderr.lines().filter(|line| line.starts_with("httpserver: ")).collect();
    assert_eq!(reports.len(), 1, "{stderr}");
    assert!(reports[0].contains("1 connection threads ended by a panic"), "{stderr}");
}
