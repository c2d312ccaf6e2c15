//! Measures concurrent attaches and detaches: wall time and CPU time, children included.
//!
//! `unshare -nm cargo run --release -p skep-network --example attach_burst [endpoints]`

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use nix::sys::resource::{UsageWho, getrusage};
use skep_network::{Config, HostPort, Network, Protocol};

#[expect(clippy::print_stdout, reason = "a measuring tool prints")]
fn main() -> anyhow::Result<()> {
    let count = std::env::args()
        .nth(1)
        .map_or(Ok(50), |text| text.parse::<u16>());
    let count = count.context("the argument is not a number of endpoints")?;
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let network = Network::open(Config::new(dir.path())).await?;
        for round in 0..5 {
            let (start, cpu) = (Instant::now(), cpu_time()?);
            try_join_all((0..count).map(|index| attach(&network, index))).await?;
            let (wall, cpu_attach) = (start.elapsed(), cpu_time()?.saturating_sub(cpu));
            let (start, cpu) = (Instant::now(), cpu_time()?);
            try_join_all((0..count).map(|index| detach(&network, index))).await?;
            let replied = start.elapsed();
            network.reconcile().await?;
            let removed = start.elapsed();
            let cpu_detach = cpu_time()?.saturating_sub(cpu);
            println!(
                "round {round}: {count} attaches in {wall:?}, {:?} CPU each; detaches replied in {replied:?}, removed in \
                 {removed:?}, {:?} CPU each",
                cpu_attach / u32::from(count),
                cpu_detach / u32::from(count)
            );
        }
        network.remove().await?;
        Ok(())
    })
}

async fn attach(network: &Network, index: u16) -> Result<(), skep_network::Error> {
    let port = HostPort {
        protocol: Protocol::Tcp,
        host_ip: [0, 0, 0, 0].into(),
        published: 10_000 + index,
        target: 80,
    };
    network
        .attach(&format!("c{index}"), &[port], None)
        .await
        .map(drop)
}

async fn detach(network: &Network, index: u16) -> Result<(), skep_network::Error> {
    network.detach(&format!("c{index}")).await
}

/// User and system time of this process and its finished children.
fn cpu_time() -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            total += Duration::from_secs(u64::try_from(time.tv_sec())?);
            total += Duration::from_micros(u64::try_from(time.tv_usec())?);
        }
    }
    Ok(total)
}
