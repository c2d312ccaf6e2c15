//! The name server of containers: what floods it harms nobody else.

use std::{
    thread,
    time::{Duration, Instant},
};

use skep_conformance::Cluster;

/// Queries of the flood.
const FLOOD_COUNT: u32 = 50_000;
/// Longest wait for a name while another container floods. A limit for a slow machine, not a figure.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// The one container of a service on the first node.
fn container(cluster: &Cluster, service: &str) -> String {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let node = cluster.node(1);
    node.docker_ok(&format!("ps -q --no-trunc -f {filter}"))
}

#[test]
fn a_container_that_floods_its_name_server_harms_nobody() {
    let cluster = Cluster::start(1, 1);
    cluster.load("web");
    let node = cluster.node(1);
    node.docker_ok("network create -d overlay back");
    for name in ["noisy", "quiet"] {
        node.create(&format!(
            "--name {name} --no-healthcheck --network back skep/web"
        ));
        cluster.placed(1, name, 1);
    }
    let (noisy, quiet) = (container(&cluster, "noisy"), container(&cluster, "quiet"));
    for name in ["quiet", "nobody.example.org"] {
        let answered = thread::scope(|scope| {
            let line = format!("exec {noisy} web flood {name} {FLOOD_COUNT}");
            let flood = scope.spawn(move || node.docker_ok(&line));
            let mut count = 0;
            // At least so many while the flood may still be on.
            while !flood.is_finished() || count < 5 {
                let begin = Instant::now();
                let text = node.docker_ok(&format!("exec {quiet} nslookup -type=a noisy"));
                assert!(text.contains("Address"), "{text}");
                let took = begin.elapsed();
                assert!(took < ANSWER_WITHIN, "answered after {took:?}");
                count += 1;
            }
            flood.join().expect("the flood ends")
        });
        let answered: u32 = answered.parse().expect("a number");
        assert!(answered > 0, "the flood of {name} is not answered at all");
        assert!(
            answered < FLOOD_COUNT / 2,
            "{answered} of {FLOOD_COUNT} queries for {name} were answered"
        );
    }
    // The limit is of queries per second, so it is over soon.
    let text = node.docker_ok(&format!("exec {noisy} nslookup -type=a quiet"));
    assert!(text.contains("Address"), "{text}");
}
