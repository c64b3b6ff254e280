//! Processes on hosts of their own, which network namespaces play; one link is cut and healed.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Process, edits, files};

/// Three hosts on one switch. Gone when dropped.
struct Network {
    prefix: String,
}

const HOSTS: [(&str, &str); 3] = [("s", "10.77.0.1"), ("a", "10.77.0.2"), ("b", "10.77.0.3")];

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "ip {args}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

impl Network {
    fn new() -> Result<Network, String> {
        let network = Network {
            prefix: format!("tri{}", std::process::id()),
        };
        let switch = network.host("x");
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add br0 type bridge"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for (name, address) in HOSTS {
            let host = network.host(name);
            ip(&format!("netns add {host}"))?;
            ip(&format!(
                "-n {host} link add eth0 type veth peer name {name}0 netns {switch}"
            ))?;
            ip(&format!("-n {switch} link set {name}0 master br0 up"))?;
            ip(&format!("-n {host} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {host} link set eth0 up"))?;
            ip(&format!("-n {host} link set lo up"))?;
        }
        Ok(network)
    }

    fn host(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A command that runs the program on a host.
    fn on(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.host(name), env!("CARGO_BIN_EXE_trilith")])
            .args(args);
        command
    }

    /// The switch's end of a link: the host itself sees a carrier that is lost, its peers see silence.
    fn link(&self, name: &str, state: &str) {
        ip(&format!("-n {} link set {name}0 {state}", self.host("x"))).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in ["s", "a", "b", "x"] {
            // Some may not have been made.
            let _missing = ip(&format!("netns del {}", self.host(name)));
        }
    }
}

/// A client on the server's host.
struct Client<'a> {
    network: &'a Network,
    server: String,
}

impl Client<'_> {
    fn call(&self, args: &[&str]) -> Result<String, String> {
        let mut command = self.network.on("s", args);
        let output = command.args(["--server", &self.server]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(format!("{text} {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn report(&self, task: &str) -> Value {
        let text = self.call(&["report", task]).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        match report["multiStageQuery"]["payload"].clone() {
            Value::Null => report,
            payload => payload,
        }
    }

    fn submit(&self, sql: &str) -> String {
        let context = ["-c", "maxNumTasks=3", "-c", "faultTolerance=true"];
        let args = [&["submit", "-e", sql][..], &context].concat();
        self.call(&args).unwrap()
    }

    /// The only row of a query.
    fn row(&self, sql: &str) -> Value {
        let text = self.call(&["sql", "-e", sql, "--format", "json"]).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn wait(&self, task: &str) -> Value {
        let started = Instant::now();
        loop {
            let report = self.report(task);
            match report["status"]["status"].as_str() {
                Some("RUNNING") => assert!(started.elapsed() < PATIENCE, "{report}"),
                Some("SUCCESS") => return report,
                _ => panic!("{report}"),
            }
        }
    }
}

fn worker(network: &Network, name: &str, server: &str, directory: &std::path::Path) -> Process {
    let data = directory.join(name).display().to_string();
    let args = [
        "worker",
        "--server",
        server,
        "--data-dir",
        &data,
        "--slots",
        "1",
        "--grpc-address",
        "0.0.0.0:0",
    ];
    Process::spawn(network.on(name, &args), &[])
}

#[test]
fn a_worker_on_another_host_is_replaced_when_its_link_is_cut() {
    let network = match Network::new() {
        Ok(network) => network,
        Err(reason) => return eprintln!("skipped: network namespaces are not possible here: {reason}"),
    };
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().canonicalize().unwrap();
    let input = directory.join("input");
    std::fs::create_dir_all(&input).unwrap();
    let edits = edits();
    let repeats = 40;
    let halves: Vec<_> = edits
        .chunks(edits.len().div_ceil(2))
        .enumerate()
        .map(|(index, half)| {
            let text: String = half.iter().map(|edit| format!("{edit}\n")).collect();
            let path = input.join(format!("half{index}.json"));
            std::fs::write(&path, text.repeat(repeats)).unwrap();
            path
        })
        .collect();
    let (data, input) = (
        directory.join("data").display().to_string(),
        input.display().to_string(),
    );
    let args = [
        "server",
        "--data-dir",
        &data,
        "--http-address",
        "0.0.0.0:0",
        "--grpc-address",
        "0.0.0.0:0",
        "--allow-local",
        &input,
        "--worker-slots",
        "0",
        "--worker-lease",
        "2s",
    ];
    let process = Process::spawn(network.on("s", &args), &[]);
    let grpc = process.ready["grpc"].as_str().unwrap();
    let port = grpc.rsplit_once(':').unwrap().1;
    let server = format!("{}:{port}", HOSTS[0].1);
    let client = Client {
        network: &network,
        server: format!("http://{server}"),
    };
    let a = worker(&network, "a", &server, &directory);
    let b = worker(&network, "b", &server, &directory);
    let source = files(&halves, "time string, channel string, added long");
    let sql = format!(
        "REPLACE INTO t OVERWRITE ALL SELECT COUNT(*) AS n, SUM(added) AS s FROM {source} PARTITIONED BY ALL"
    );
    let added: i64 = edits.iter().map(|edit| edit["added"].as_i64().unwrap()).sum();
    let expected = json!({"n": edits.len() * repeats, "s": added * repeats as i64});

    // Without harm: rows cross the links, so the addresses that 0.0.0.0 became can be reached.
    let report = client.wait(&client.submit(&sql));
    assert_eq!(report["stages"][0]["workerCount"], 2, "{report}");
    assert_eq!(client.row("SELECT n, s FROM t"), expected, "{report}");
    let log = a.log();
    assert!(log.contains(HOSTS[1].1), "{log}");

    let task = client.submit(&sql);
    let started = Instant::now();
    while client.report(&task)["stages"][0]["phase"].is_null() {
        assert!(started.elapsed() < PATIENCE);
    }
    network.link("a", "down");
    let cut = Instant::now();
    let report = client.wait(&task);
    assert_eq!(client.row("SELECT n, s FROM t"), expected, "{report}");
    // The lease, and the work itself once more.
    assert!(cut.elapsed() < Duration::from_secs(30), "{:?}", cut.elapsed());
    eprintln!("the task ended {:.1?} after the cut", cut.elapsed());

    network.link("a", "up");
    let healed = Instant::now();
    loop {
        let report = client.wait(&client.submit(&sql));
        assert_eq!(client.row("SELECT n, s FROM t"), expected, "{report}");
        if report["stages"][0]["workerCount"] == 2 {
            break;
        }
        assert!(healed.elapsed() < PATIENCE, "{}", a.log());
    }
    eprintln!(
        "the worker was back {:.1?} after the link was healed",
        healed.elapsed()
    );
    drop((a, b, process));
}
