//! Throughput, latency and connections of a way between two namespaces.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::bench::sample::percentile;

/// Bytes written at once.
const CHUNK_BYTES: u32 = 128 << 10;
/// Questions of one measurement of latency.
const QUESTION_COUNT: u32 = 3000;
/// Connections of one measurement.
const CONNECTION_COUNT: u32 = 1000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a server does with a connection: its first byte says.
const PUMP: u8 = 1;
const ECHO: u8 = 2;

/// What a way is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) gigabits: f64,
    pub(super) micros: f64,
    pub(super) connections: f64,
}

/// Answers until the process ends.
pub(super) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("failed to listen at {address}"))?;
    loop {
        let (stream, _) = listener.accept().context("failed to accept")?;
        thread::spawn(move || answer(stream));
    }
}

/// What fails ends the connection, and the client notices.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut mode = [0];
    stream.read_exact(&mut mode)?;
    if mode == [PUMP] {
        let mut count = 0_u64;
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return stream.write_all(&count.to_be_bytes());
            }
            count += read as u64;
        }
    }
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Measures one after the other.
pub(super) fn measure(target: SocketAddr, time: Duration) -> anyhow::Result<Figures> {
    let context = || format!("failed to measure the way to {target}");
    Ok(Figures {
        gigabits: throughput(target, time).with_context(context)?,
        micros: latency(target).with_context(context)?,
        connections: connections(target).with_context(context)?,
    })
}

fn connect(target: SocketAddr, mode: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&[mode])?;
    Ok(stream)
}

/// Gigabits a second, counted when the last byte was read at the other end.
fn throughput(target: SocketAddr, time: Duration) -> anyhow::Result<f64> {
    let mut stream = connect(target, PUMP)?;
    let chunk = vec![0; CHUNK_BYTES as usize];
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < time {
        stream.write_all(&chunk)?;
        count += 1;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut read = [0; 8];
    stream.read_exact(&mut read)?;
    let elapsed = start.elapsed();
    let sent = u64::from(count) * u64::from(CHUNK_BYTES);
    anyhow::ensure!(u64::from_be_bytes(read) == sent, "bytes were lost");
    Ok(f64::from(count) * f64::from(CHUNK_BYTES) * 8.0 / elapsed.as_secs_f64() / 1e9)
}

/// Microseconds from question to answer, the median.
fn latency(target: SocketAddr) -> anyhow::Result<f64> {
    let mut stream = connect(target, ECHO)?;
    let mut times = Vec::new();
    let mut byte = [0];
    for _ in 0..QUESTION_COUNT {
        let start = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(percentile(&times, 50))
}

/// Connections with one question each, a second.
fn connections(target: SocketAddr) -> anyhow::Result<f64> {
    let start = Instant::now();
    for _ in 0..CONNECTION_COUNT {
        let mut stream = connect(target, ECHO)?;
        stream.write_all(&[0])?;
        stream.read_exact(&mut [0])?;
    }
    Ok(f64::from(CONNECTION_COUNT) / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_loopback_are_sane() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                thread::spawn(move || answer(stream));
            }
        });
        let figures = measure(target, Duration::from_millis(20)).unwrap();
        assert!(
            figures.gigabits > 0.01 && figures.micros > 1.0 && figures.connections > 10.0,
            "{figures:?}"
        );
    }
}
