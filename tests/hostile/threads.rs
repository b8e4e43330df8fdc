//! More clients than threads.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::fault::{PROBE_MAX, ends_well, fetch_status, turn, write_row};
use support::server::{Server, binary, command};

/// The share of the clients that must be answered within [`ANSWERED_WITHIN`].
const ANSWERED_MIN: f64 = 0.9;
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// How long after the clients have gone a fresh one is served within [`PROBE_MAX`].
const BACK_AFTER: Duration = Duration::from_secs(3);

const FRESH_CLIENTS: usize = 5;

/// Returns a command that runs the binary under a limit on threads. The limit counts all threads of a user and does not hold
/// for root, so each limit has a user of its own, who must be able to read the binary.
fn limited(threads: u32) -> (PathBuf, Command) {
    let folder = std::env::temp_dir().join(format!("httpserver-threads-{threads}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("httpserver");
    fs::copy(binary(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let user = (64_000 + threads).to_string();
    let mut limited = Command::new("setpriv");
    limited
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["prlimit", &format!("--nproc={threads}")])
        .arg(&program)
        .args(command(&["--listen", "127.0.0.1:0"]).get_args());
    (folder, limited)
}

#[test]
fn more_clients_than_threads_are_served() {
    let _turn = turn();
    for threads in [200, 2_048] {
        let (folder, limited) = limited(threads);
        let mut server = Server::spawn(limited);
        let reference = Server::start(&[]);
        fs::remove_dir_all(folder).unwrap();
        let clients = 2 * threads as usize;
        let warned = server.stderr();
        assert!(warned.contains(&format!("a limit of {threads} threads")), "{warned}");

        let mut crowd = Crowd::connect_and_send(server.address, clients, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        let begun = Instant::now();
        while begun.elapsed() < ANSWERED_WITHIN && crowd.count(|member| member.has(1) || member.closed) < clients {
            crowd.run_for(Duration::from_millis(100), true);
        }
        let took = begun.elapsed();
        let answered = crowd.count(|member| member.has(1));
        assert!(server.is_alive(), "{}", server.stderr());
        println!(
            "{threads}: {answered} of {clients} within {took:?}\n{}",
            server.stderr()
        );
        assert!(
            answered as f64 >= ANSWERED_MIN * clients as f64,
            "only {answered} of {clients} were answered"
        );
        let resident = server.resident_bytes();
        drop(crowd);

        std::thread::sleep(BACK_AFTER);
        // The quickest of a few: a machine with other work keeps a client waiting now and then, at any server.
        let fresh = [&server, &reference].map(|server| {
            let took = (0..FRESH_CLIENTS).map(|_| {
                let begun = Instant::now();
                assert_eq!(fetch_status(server.address, "/healthz").unwrap(), 200);
                begun.elapsed()
            });
            took.min().expect("some")
        });
        assert!(
            fresh[0] <= PROBE_MAX.max(2 * fresh[1]),
            "a fresh client, and one beside: {fresh:?}"
        );
        ends_well(server);
        write_row(&format!(
            "| threads | {clients} clients at a limit of {threads} threads | {answered} of {clients} served within {:.1} s | not while threads are short | {} MiB | at most {} s |",
            took.as_secs_f64(),
            resident >> 20,
            BACK_AFTER.as_secs()
        ));
    }
}

#[test]
fn too_few_threads_to_start_get_one_line_and_status_1() {
    for threads in [1, 5, 12] {
        let (folder, mut limited) = limited(threads);
        let output = limited.output().unwrap();
        fs::remove_dir_all(folder).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{threads}: {stderr}");
        let errors: Vec<&str> = stderr.lines().filter(|line| !line.contains(" warning: ")).collect();
        assert!(
            matches!(errors[..], [line] if line.contains(" threads: ")),
            "{threads}: {stderr}"
        );
    }
}
