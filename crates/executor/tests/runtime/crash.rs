//! What survives whose death.

use skep_executor::{
    monitor::Phase,
    runtime::{Adopted, OciChoice},
};

use crate::rig::{BOTH, Rig, wait_until};

fn kill(pid: i32) {
    let status = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn containers_are_adopted_running_and_ended() {
    for oci in BOTH {
        let rig = Rig::new(oci);
        let running = rig.started("sleep 100").await;
        let ended = rig.started("exit 5").await;
        let ended_id = ended.id().clone();
        // Nobody of the old daemon waits: the record must be on disk all the same.
        wait_until("the record is written", || {
            ended.state().unwrap().phase == Phase::Exited
        });
        drop(ended);
        let mut live = Vec::new();
        let mut codes = Vec::new();
        for adopted in rig.restarted().adopt_all().await.unwrap() {
            match adopted {
                Adopted::Live { handle, state } => live.push((handle, state.phase)),
                Adopted::Ended { handle, state } => {
                    codes.push((handle.id().clone(), state.exit.unwrap().code));
                }
                Adopted::Broken { id, reason } => panic!("{id}: {reason}"),
            }
        }
        assert_eq!(codes, [(ended_id, 5)]);
        assert_eq!(live.len(), 1);
        assert_eq!((live[0].0.id(), live[0].1), (running.id(), Phase::Running));
        assert_eq!(live[0].0.kill().await.unwrap().code, 137);
    }
}

#[tokio::test]
async fn a_killed_monitor_takes_its_container_along_and_waiters_hear_of_it() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let handle = rig.started("sleep 100").await;
        let state = handle.state().unwrap();
        let waiting = handle.wait();
        let killing = async { kill(state.monitor.pid) };
        let (exit, ()) = tokio::join!(waiting, killing);
        let exit = exit.unwrap();
        assert_eq!((exit.code, &*exit.error), (137, "monitor died"), "{oci:?}");
        let process = state.process.unwrap();
        wait_until("the container's process is gone", || !process.is_alive());
    }
}

#[tokio::test]
async fn a_monitor_killed_while_no_daemon_lived_is_found_at_adoption() {
    let rig = Rig::new(OciChoice::Auto);
    let handle = rig.started("sleep 100").await;
    let state = handle.state().unwrap();
    drop(handle);
    kill(state.monitor.pid);
    wait_until("the monitor is gone", || !state.monitor.is_alive());
    let found = rig.restarted().adopt_all().await.unwrap();
    match &found[..] {
        [Adopted::Ended { state, .. }] => assert_eq!(state.exit.as_ref().unwrap().code, 137),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_broken_and_can_be_deleted() {
    let rig = Rig::new(OciChoice::Auto);
    let id = rig.id();
    std::fs::create_dir(rig.dir.join("containers").join(id.as_str())).unwrap();
    let found = rig.runtime.adopt_all().await.unwrap();
    assert!(matches!(&found[..], [Adopted::Broken { .. }]));
    rig.runtime.delete(&id).await.unwrap();
    assert!(rig.runtime.adopt_all().await.unwrap().is_empty());
}
