//! The log, written by the monitor and read by the runtime.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use skep_executor::runtime::{Handle, LogOptions, OciChoice, OutputStream, config::LogConfig};

use crate::rig::{BOTH, Rig};

async fn read(handle: &Handle, options: LogOptions) -> Vec<(OutputStream, String)> {
    handle
        .logs(options)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.stream,
                String::from_utf8(entry.bytes.to_vec()).unwrap(),
            )
        })
        .collect()
        .await
}

#[tokio::test]
async fn output_is_logged_and_readable_after_the_end() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let handle = rig.started("echo one; echo two >&2; printf three").await;
        handle.wait().await.unwrap();
        let all = read(&handle, LogOptions::default()).await;
        let texts: Vec<&str> = all.iter().map(|(_, text)| &**text).collect();
        assert!(
            texts.contains(&"one\n") && texts.contains(&"two\n"),
            "{oci:?} {texts:?}"
        );
        assert!(texts.contains(&"three"));
        let errors = read(
            &handle,
            LogOptions {
                stdout: false,
                ..LogOptions::default()
            },
        )
        .await;
        assert_eq!(errors, [(OutputStream::Stderr, "two\n".to_owned())]);
    }
}

#[tokio::test]
async fn following_sees_every_line_through_rotations_and_ends_with_the_container() {
    let rig = Rig::new(OciChoice::Auto);
    let mut config = rig.shell("seq 1 20000");
    config.log = LogConfig::JsonFile {
        path: None,
        max_size: 400_000,
        max_files: 10,
        details: BTreeMap::new(),
    };
    let handle = rig.runtime.create(&rig.id(), config).await.unwrap();
    let follow = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let reading = read(&handle, follow);
    let (lines, started) = tokio::join!(reading, handle.start());
    started.unwrap();
    let numbers: Vec<u32> = lines
        .iter()
        .map(|(_, line)| line.trim().parse().unwrap())
        .collect();
    assert_eq!(numbers, (1..=20000).collect::<Vec<_>>());
    assert!(
        handle
            .dir()
            .join(format!("{}-json.log.1", handle.id()))
            .exists()
    );
    let tail = LogOptions {
        tail: Some(2),
        ..LogOptions::default()
    };
    let last: Vec<String> = read(&handle, tail)
        .await
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(last, ["19999\n", "20000\n"]);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_costs_entries_not_the_container() {
    let rig = Rig::new(OciChoice::Auto);
    let mut config = rig.shell("seq 1 1000");
    config.log = LogConfig::JsonFile {
        path: Some("/dev/full".into()),
        max_size: 0,
        max_files: 1,
        details: BTreeMap::new(),
    };
    let handle = rig.runtime.create(&rig.id(), config).await.unwrap();
    handle.start().await.unwrap();
    assert_eq!(handle.wait().await.unwrap().code, 0);
    assert_eq!(handle.state().unwrap().log_dropped, 1000);
}
