//! Attach, stdin, pty, slow clients, broken clients.

use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::Duration,
};

use skep_executor::runtime::{AttachOptions, ContainerConfig, Handle, OciChoice, OutputStream};

use crate::rig::{BOTH, Rig, WAIT_MAX};

const ALL: AttachOptions = AttachOptions {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// Runs to the end and gives exit code and stdout.
pub(crate) async fn run(rig: &Rig, config: ContainerConfig) -> (i32, String) {
    let handle = rig.runtime.create(&rig.id(), config).await.unwrap();
    let (_input, mut output) = handle.attach(ALL).await.unwrap();
    handle.start().await.unwrap();
    let mut text = String::new();
    while let Some((stream, bytes)) = output.next().await.unwrap() {
        let name = if stream == OutputStream::Stderr {
            "[err]"
        } else {
            ""
        };
        text.push_str(name);
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    (handle.wait().await.unwrap().code, text)
}

/// Until the shell sleeps in its loop: then its trap is set.
pub(crate) async fn wait_for_trap(handle: &Handle) {
    let pid = handle.pid().unwrap();
    crate::rig::wait_until("the shell has children", || {
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .is_ok_and(|text| !text.trim().is_empty())
    });
}

#[tokio::test]
async fn stdin_reaches_the_container_and_ends_with_the_client() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let mut config = rig.shell("cat; echo over >&2");
        (config.has_stdin, config.is_stdin_once) = (true, true);
        let handle = rig.runtime.create(&rig.id(), config).await.unwrap();
        let (mut input, mut output) = handle.attach(ALL).await.unwrap();
        handle.start().await.unwrap();
        let sent = vec![b'x'; 300_000];
        let write = async {
            input.write(&sent).await.unwrap();
            input.close().await.unwrap();
        };
        let read = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            while let Some((stream, bytes)) = output.next().await.unwrap() {
                match stream {
                    OutputStream::Stdout => out.extend(bytes),
                    OutputStream::Stderr => err.extend(bytes),
                }
            }
            (out, err)
        };
        let ((), (out, err)) = tokio::join!(write, read);
        assert_eq!(
            (out.len(), &err[..]),
            (sent.len(), &b"over\n"[..]),
            "{oci:?}"
        );
        assert_eq!(handle.wait().await.unwrap().code, 0);
    }
}

#[tokio::test]
async fn a_pty_has_its_size_and_one_stream() {
    for oci in BOTH {
        let rig = Rig::new(oci.clone());
        let mut config = rig.shell("stty size; read line; echo got $line; stty size; echo e >&2");
        (config.has_tty, config.has_stdin, config.tty_size) = (true, true, Some((30, 90)));
        let handle = rig.runtime.create(&rig.id(), config).await.unwrap();
        let (mut input, mut output) = handle.attach(ALL).await.unwrap();
        handle.start().await.unwrap();
        let mut text = String::new();
        while !text.contains("30 90") {
            let (_, bytes) = output.next().await.unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        handle.resize(40, 100).await.unwrap();
        input.write(b"hello\n").await.unwrap();
        while let Some((stream, bytes)) = output.next().await.unwrap() {
            assert_eq!(stream, OutputStream::Stdout);
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert_eq!(
            text, "30 90\r\nhello\r\ngot hello\r\n40 100\r\ne\r\n",
            "{oci:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_reads_gets_every_byte_and_a_stuck_one_blocks_nobody() {
    let rig = Rig::new(OciChoice::Auto);
    let mut config = rig.shell("head -c 30000000 /dev/zero");
    config.log = skep_executor::runtime::config::LogConfig::None;
    let handle = rig.runtime.create(&rig.id(), config).await.unwrap();
    let (_stuck_input, stuck) = handle.attach(ALL).await.unwrap();
    let (_input, mut output) = handle.attach(ALL).await.unwrap();
    handle.start().await.unwrap();
    let mut count = 0;
    while let Some((_, bytes)) = output.next().await.unwrap() {
        count += bytes.len();
    }
    assert_eq!(count, 30_000_000);
    assert_eq!(handle.wait().await.unwrap().code, 0);
    drop(stuck);
}

#[tokio::test]
async fn broken_clients_do_not_disturb_the_container() {
    let rig = Rig::new(OciChoice::Auto);
    let handle = rig.started("sleep 100").await;
    // The directory's path is longer than a socket address may be.
    let dir = std::fs::File::open(handle.dir()).unwrap();
    let socket = format!("/proc/self/fd/{}/monitor.sock", dir.as_raw_fd());
    let half = UnixStream::connect(&socket).unwrap();
    (&half).write_all(&[1, 1, 0]).unwrap();
    let payloads: [&[u8]; 4] = [
        b"GET / HTTP/1.0\r\n\r\n",
        &[1, 1, 0, 0, 0xff, 0xff, 0xff, 0xff],
        &[1, 1, 0, 0, 3, 0, 0, 0, b'{', b'{', b'{'],
        &[1, 3, 0, 0, 0, 0, 0, 0],
    ];
    for payload in payloads {
        let mut client = UnixStream::connect(&socket).unwrap();
        client.set_read_timeout(Some(WAIT_MAX)).unwrap();
        client.write_all(payload).unwrap();
        let mut rest = Vec::new();
        // Closed by the monitor, with or without bytes of ours unread.
        let _ = client.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    assert!(handle.resize(1, 1).await.is_err(), "there is no pty");
    assert_eq!(
        handle
            .stop(Some(9), Some(Duration::from_secs(9)))
            .await
            .unwrap()
            .code,
        137
    );
    drop(half);
}
