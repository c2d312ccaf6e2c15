//! What others break, and what a crash leaves half made, is repaired.

use super::*;

/// Breaks something, checks what the doctor says, and that one reconciliation repairs it.
async fn check(break_it: &str, finding: &str) {
    let (break_it, finding) = (break_it.to_owned(), finding.to_owned());
    std::thread::spawn(move || {
        on_cluster(2, async move |cluster| {
            let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
            cluster.add(1, "b", &[("red", "10.0.1.3")]);
            cluster.add(2, "c", &[("red", "10.0.1.4")]);
            cluster.update().await;
            let plane = &cluster.node(1).plane;
            assert_eq!(plane.doctor().await.unwrap(), [""; 0]);
            let sandbox = "nsenter --net=/run/plane1/netns/red";
            run(&break_it.replace("SANDBOX", sandbox));
            let findings = plane.doctor().await.unwrap().join("\n");
            assert!(findings.contains(&finding), "{break_it}: {findings}");
            let report = plane.reconcile().await.unwrap();
            assert!(report.failures.is_empty(), "{break_it}: {report:?}");
            assert_eq!(plane.doctor().await.unwrap(), [""; 0], "{break_it}");
            for to in ["10.0.1.3", "10.0.1.4"] {
                assert!(can_ping(&a, to), "{break_it}: {to}");
            }
        });
    })
    .join()
    .unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn deleted_links_and_flushed_tables_are_found_and_repaired() {
    check(
        "SANDBOX ip link del br0",
        "network red: bridge br0 is missing",
    )
    .await;
    check(
        "SANDBOX ip link del vx0",
        "tunnel vx0 with id 4097 from 192.0.2.1 port 4789 is missing",
    )
    .await;
    check(
        "SANDBOX ip link set vx0 down",
        "tunnel vx0 is not in the bridge, down",
    )
    .await;
    check("ip -n a link del eth1", "container a is not connected").await;
    check(
        "ip -n a addr flush dev eth1",
        "container a: eth1 lacks addresses",
    )
    .await;
    check(
        "ip -n a link set eth1 down",
        "container a: eth1 lacks addresses",
    )
    .await;
    check("SANDBOX sh -c 'for l in $(ip -br link | cut -d@ -f1 | grep ^p); do ip link set $l down; done'", "is down or not in the bridge").await;
    check(
        "SANDBOX ip neigh flush dev vx0 nud permanent",
        "address 10.0.1.4 is not known",
    )
    .await;
    check(
        "SANDBOX bridge fdb del 02:42:0a:00:01:04 dev vx0 dst 192.0.2.2 self",
        "packets for 02:42:0a:00:01:04 are not sent to node 192.0.2.2",
    )
    .await;
    check(
        "SANDBOX bridge fdb add 02:42:0a:00:01:99 dev vx0 dst 192.0.2.2 self permanent",
        "packets for 02:42:0a:00:01:99, which nobody has",
    )
    .await;
    check(
        "SANDBOX ip link add pdeadbeef type bridge",
        "link pdeadbeef should not be there",
    )
    .await;
    check(
        "nsenter --net=/run/netns/node1 nft flush ruleset",
        "rules that keep tunnels untracked",
    )
    .await;
    check("umount /run/plane1/netns/red", "has no sandbox").await;
}

#[test]
fn a_crash_after_any_action_is_healed_by_the_next_start() {
    for count in 0..18 {
        on_cluster(1, async move |cluster| {
            let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
            cluster.add(1, "b", &[("red", "10.0.1.3")]);
            let plane = cluster.node(1).plane.clone();
            plane.doom(count).await;
            let report = plane.update(cluster.desired(1)).await;
            let is_whole = report.is_ok_and(|report| report.failures.is_empty());
            plane.close().await;
            let plane = open_plane(&cluster.node(1).netns, 1).unwrap();
            let report = plane.update(cluster.desired(1)).await.unwrap();
            assert!(report.failures.is_empty(), "{count}: {report:?}");
            // Names are served by the process, so a new one always begins.
            let mut steps = steps(&report);
            steps.retain(|step| !step.ends_with("serve names"));
            assert!(!is_whole || steps.is_empty(), "{count}: {steps:?}");
            assert!(is_whole || count < 17);
            assert!(can_ping(&a, "10.0.1.3"), "{count}");
            assert_eq!(plane.doctor().await.unwrap(), [""; 0], "{count}");
        });
    }
}

#[test]
fn a_restart_disturbs_no_connection() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        cluster.update().await;
        let listener = inside(Some(&b), || {
            std::net::TcpListener::bind("0.0.0.0:80").unwrap()
        });
        let mut client = inside(Some(&a), || {
            std::net::TcpStream::connect("10.0.1.3:80").unwrap()
        });
        let (mut server, _) = listener.accept().unwrap();
        cluster.node(1).plane.close().await;
        let plane = open_plane(&cluster.node(1).netns, 1).unwrap();
        let report = plane.update(cluster.desired(1)).await.unwrap();
        assert_eq!(steps(&report), ["container a: serve names"]);
        let mut buffer = [0; 5];
        std::io::Write::write_all(&mut client, b"hello").unwrap();
        std::io::Read::read_exact(&mut server, &mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
    });
}

/// Whatever mounts of other processes keep the hidden sandbox alive, with its VXLAN id.
#[test]
fn a_sandbox_whose_mount_is_detached_is_replaced() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let b = cluster.add(2, "b", &[("red", "10.0.1.3")]);
        cluster.update().await;
        let _b = Server::tcp(Some(&b), "0.0.0.0:80");
        let path = "/run/plane1/netns/red";
        let _alive = std::fs::File::open(path).unwrap();
        run(&format!("umount -l {path}"));
        cluster.node(1).plane.heal();
        let start = std::time::Instant::now();
        let mut findings = cluster.node(1).plane.doctor().await.unwrap();
        while !findings.is_empty() {
            assert!(start.elapsed().as_secs() < 10, "{findings:?}");
            findings = cluster.node(1).plane.doctor().await.unwrap();
        }
        assert_eq!(
            ask(Protocol::Tcp, Some(&a), "10.0.1.3:80").unwrap(),
            "10.0.1.2"
        );
    });
}

/// What is broken from outside on node 1, each repaired without anybody asking.
const HARMS: [&str; 16] = [
    "NODE nft flush ruleset",
    "NODE nft delete table ip skep_mesh",
    "NODE nft flush map ip skep_mesh ports",
    "NODE ip link del skep0x",
    "NODE ip link set skep0x down",
    "NODE ip rule del pref 5300",
    "NODE ip route del 10.255.2.0/24",
    "NODE ip neigh flush dev skep0x nud permanent",
    "SANDBOX ip link del br0",
    "SANDBOX ip link set vx0 down",
    "SANDBOX ip link del vx0",
    "SANDBOX bridge fdb del 02:42:0a:00:01:04 dev vx0 dst 192.0.2.2 self",
    "SANDBOX ip neigh flush dev vx0 nud permanent",
    "CONTAINER nft flush ruleset",
    "CONTAINER nft flush map ip skep slots",
    "NODE nft flush chain ip skep_mesh mangle_pre",
];

#[test]
fn what_others_break_heals_by_itself_within_seconds_and_connections_survive() {
    on_cluster(2, async |cluster| {
        let a = cluster.add(1, "a", &[("red", "10.0.1.2")]);
        let c = cluster.add(2, "c", &[("red", "10.0.1.4")]);
        cluster.serve("red", "s", &["10.0.1.100"], &[("10.0.1.4", Health::Ready)]);
        cluster.open_networks();
        let task = cluster.networks[1].attach("t", &[], None).await.unwrap();
        cluster.publish(8080, &[("10.255.2.2:80", Health::Ready)]);
        cluster.update().await;
        let node = cluster.node(1).netns.clone();
        cluster.node(1).plane.heal();
        let _servers = [
            Server::tcp(Some(&c), "0.0.0.0:80"),
            Server::tcp(Some(&task.netns_path), "0.0.0.0:80"),
        ];
        let held = inside(Some(&c), || {
            std::net::TcpListener::bind("0.0.0.0:81").unwrap()
        });
        let connect = || std::net::TcpStream::connect("10.0.1.100:81").unwrap();
        let mut client = inside(Some(&a), connect);
        let (mut server, _) = held.accept().unwrap();
        for harm in HARMS {
            let command = harm
                .replace("NODE", &format!("nsenter --net={}", node.display()))
                .replace("SANDBOX", "nsenter --net=/run/plane1/netns/red")
                .replace("CONTAINER", &format!("nsenter --net={}", a.display()));
            run(&command);
            let start = std::time::Instant::now();
            for (from, to) in [
                (Some(&a), "10.0.1.4:80"),
                (Some(&a), "10.0.1.100:80"),
                (None, "192.0.2.1:8080"),
            ] {
                let from = from.map(PathBuf::as_path);
                while let Err(error) = ask(Protocol::Tcp, from, to) {
                    let waited = start.elapsed().as_secs();
                    if waited >= 5 {
                        let findings = cluster.node(1).plane.doctor().await;
                        panic!("{to} after `{harm}`: {error}: {findings:?}");
                    }
                }
            }
            let waited = start.elapsed();
            assert!(waited.as_millis() < 3500, "{waited:?} after `{harm}`");
            std::io::Write::write_all(&mut client, b"word").unwrap();
            let mut heard = [0; 4];
            std::io::Read::read_exact(&mut server, &mut heard).unwrap();
        }
        // The last one breaks nothing that a client would see.
        let start = std::time::Instant::now();
        loop {
            let findings = cluster.node(1).plane.doctor().await.unwrap();
            if findings.is_empty() {
                break;
            }
            assert!(start.elapsed().as_secs() < 3, "{findings:?}");
        }
    });
}
