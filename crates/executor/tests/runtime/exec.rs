//! Exec sessions, top, stats, pids.

use std::{collections::BTreeSet, time::Duration};

use skep_executor::runtime::{Error, ExecConfig, OciChoice};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{BOTH, Rig};

fn shell(script: &str) -> ExecConfig {
    ExecConfig {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..ExecConfig::default()
    }
}

#[tokio::test]
async fn exec_has_streams_user_environment_and_exit_code() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let handle = rig.started("sleep 100").await;
        let config = ExecConfig {
            env: vec!["A=b".to_owned()],
            user: "web".to_owned(),
            cwd: "/tmp".to_owned(),
            has_stdin: true,
            ..shell("id -u; pwd; echo $A; cat; echo bad >&2; exit 9")
        };
        let mut exec = handle.exec(config).await.unwrap();
        let mut stdin = exec.stdin.take().unwrap();
        stdin.write_all(b"typed\n").await.unwrap();
        drop(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        exec.stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        exec.stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .await
            .unwrap();
        assert_eq!((&*out, &*err), ("33\n/tmp\nb\ntyped\n", "bad\n"), "{oci:?}");
        assert_eq!(exec.wait().await.unwrap(), 9, "{oci:?}");
    }
}

#[tokio::test]
async fn exec_with_a_pty_can_be_resized() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let handle = rig.started("sleep 100").await;
        let config = ExecConfig {
            has_tty: true,
            has_stdin: true,
            tty_size: Some((20, 70)),
            ..shell("read a; stty size; exit 4")
        };
        let mut exec = handle.exec(config).await.unwrap();
        exec.control().resize(25, 75).unwrap();
        exec.stdin
            .as_mut()
            .unwrap()
            .write_all(b"go\n")
            .await
            .unwrap();
        let mut text = String::new();
        exec.stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .await
            .unwrap();
        assert!(text.ends_with("25 75\r\n"), "{oci:?} {text:?}");
        assert_eq!(exec.wait().await.unwrap(), 4);
    }
}

#[tokio::test]
async fn exec_of_a_missing_program_and_in_a_dead_container_is_refused() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let handle = rig.started("sleep 100").await;
        let config = ExecConfig {
            args: vec!["foo".to_owned()],
            ..ExecConfig::default()
        };
        match handle.exec(config).await {
            Err(Error::NotRun { code: 127, message }) => assert_eq!(
                message,
                "OCI runtime exec failed: exec failed: unable to start container process: \
                 exec: \"foo\": executable file not found in $PATH: unknown"
            ),
            other => panic!("{oci:?} {other:?}"),
        }
        handle.kill().await.unwrap();
        assert!(matches!(
            handle.exec(shell("true")).await,
            Err(Error::NotRunning(_))
        ));
    }
}

/// Processes of the container but for its first.
fn others(handle: &skep_executor::runtime::Handle) -> usize {
    handle.pids().unwrap().len() - 1
}

#[tokio::test]
async fn exec_over_its_time_is_killed_with_its_children() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let handle = rig.started("exec sleep 100").await;
        let config = ExecConfig {
            time_limit: Some(Duration::from_millis(300)),
            ..shell("sleep 200 & sleep 300; sleep 400")
        };
        let mut exec = handle.exec(config).await.unwrap();
        assert!(others(&handle) > 0, "{oci:?}");
        let ending = exec.wait().await;
        assert!(
            matches!(ending, Err(Error::TimeLimit)),
            "{oci:?} {ending:?}"
        );
        crate::rig::wait_until("nothing of the session runs", || others(&handle) == 0);
        let config = ExecConfig {
            time_limit: Some(Duration::from_secs(100)),
            ..shell("exit 3")
        };
        let mut exec = handle.exec(config).await.unwrap();
        assert_eq!(exec.wait().await.unwrap(), 3, "{oci:?}");
    }
}

#[tokio::test]
async fn exec_with_a_time_limit_ends_when_nobody_listens_any_more() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let handle = rig.started("exec sleep 100").await;
        let config = ExecConfig {
            time_limit: Some(Duration::from_secs(100)),
            ..shell("sleep 200 & sleep 300")
        };
        let exec = handle.exec(config).await.unwrap();
        crate::rig::wait_until("the session runs", || others(&handle) == 2);
        drop(exec);
        crate::rig::wait_until("nothing of the session runs", || others(&handle) == 0);
    }
}

#[tokio::test]
async fn top_pids_and_stats_see_the_containers_processes() {
    let rig = Rig::new(OciChoice::Auto);
    let handle = rig.started("sleep 100 & sleep 200 & wait").await;
    crate::rig::wait_until("all three processes run", || {
        handle.pids().unwrap().len() == 3
    });
    let pids: BTreeSet<i32> = handle.pids().unwrap().into_iter().collect();
    assert!(pids.contains(&handle.pid().unwrap()));
    let table = handle.top("").await.unwrap();
    let column = table
        .titles
        .iter()
        .position(|title| title == "PID")
        .unwrap();
    let seen: BTreeSet<i32> = table
        .processes
        .iter()
        .map(|row| row[column].parse().unwrap())
        .collect();
    assert_eq!(seen, pids);
    assert!(
        table
            .processes
            .iter()
            .any(|row| row.last().unwrap().ends_with("sleep 200"))
    );
    let stats = handle.stats().unwrap();
    assert_eq!(stats.pids.current, 3);
    assert!(stats.memory.usage_bytes > 0 && stats.cpu.total_nanos > 0);
    assert!(stats.cpu.system_nanos > stats.cpu.total_nanos);
    assert!(stats.memory.limit_bytes > 0);
    assert!(handle.top("-o pid=x").await.is_err());
}
