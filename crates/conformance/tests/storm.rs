//! Services that go before their containers are made leave nothing behind.

use std::{fs, time::Duration};

use skep_conformance::{Node, until};

#[test]
fn services_removed_at_once_leave_no_container() {
    const COUNT: usize = 40;
    let node = Node::start();
    for number in 0..COUNT {
        let body = format!(
            r#"{{"Name":"s{number}","TaskTemplate":{{"ContainerSpec":{{"Image":"skep/busybox","Command":["sleep","1000"],"StopGracePeriod":100000000}}}},"Mode":{{"Replicated":{{"Replicas":1}}}}}}"#
        );
        let created = node.http("POST", "/services/create", Some(&body));
        assert_eq!(created.status, 201, "{}", created.message());
        let removed = node.http("DELETE", &format!("/services/s{number}"), None);
        assert_eq!(removed.status, 200, "{}", removed.message());
    }
    // A last service: behind it the agent has seen everything before.
    node.create("--name last skep/busybox sleep 1000");
    node.running("last", 1);
    until("only the last is left", Duration::from_secs(20), || {
        let left = node.docker_ok("ps -aq --no-trunc");
        let made = fs::read_dir(node.data_dir().join("containers"))
            .map_err(|error| error.to_string())?
            .count();
        if left.lines().count() == 1 && made == 1 {
            Ok(())
        } else {
            Err(format!("{made} directories, containers:\n{left}"))
        }
    });
}
