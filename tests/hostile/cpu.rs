//! The CPU time of the doorbell and the guard.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fault::{turn, write_row};
use support::client::load_until;
use support::server::Server;

/// Returns the CPU time of the threads whose names start with `name`, so of all threads if it is empty.
fn cpu_of_threads(server: &Server, name: &str) -> Duration {
    let folder = format!("/proc/{}/task", server.pid());
    let mut nanoseconds = 0;
    for thread in fs::read_dir(folder).unwrap().flatten() {
        // The thread may have ended meanwhile.
        let Ok(comm) = fs::read_to_string(thread.path().join("comm")) else {
            continue;
        };
        if comm.starts_with(name)
            && let Ok(schedstat) = fs::read_to_string(thread.path().join("schedstat"))
        {
            nanoseconds += schedstat.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    Duration::from_nanos(nanoseconds)
}

#[test]
fn an_idle_server_uses_less_than_half_a_percent_of_a_core() {
    let server = Server::start(&[]);
    std::thread::sleep(Duration::from_secs(6));
    let _turn = turn();
    let before = cpu_of_threads(&server, "");
    std::thread::sleep(Duration::from_secs(10));
    let share = (cpu_of_threads(&server, "") - before).as_secs_f64() / 10.0;
    write_row(&format!(
        "| no fault | nothing for 10 s | {:.2} % of a core | - | {} MiB | - |",
        share * 100.0,
        server.resident_bytes() >> 20
    ));
    assert!(share < 0.005, "{share}");
}

#[test]
fn the_doorbell_uses_less_than_one_percent_of_a_core_under_load() {
    let _turn = turn();
    let server = Server::start(&[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load_until(server.address, "/", 1_000, Duration::from_secs(30), &stop));
        std::thread::sleep(Duration::from_secs(3));
        let before = cpu_of_threads(&server, "doorbell");
        std::thread::sleep(Duration::from_secs(5));
        let share = (cpu_of_threads(&server, "doorbell") - before).as_secs_f64() / 5.0;
        stop.store(true, Ordering::Relaxed);
        write_row(&format!(
            "| full load | 1,000 clients for 8 s | the doorbell takes {:.2} % of a core | - | {} MiB | - |",
            share * 100.0,
            server.resident_bytes() >> 20
        ));
        assert!(share < 0.01, "{share}");
    });
}
