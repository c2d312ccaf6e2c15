//! `skep job ls`

use std::io::Write;

use serde_json::Value;
use skep_docker_api::client::Client;

const TITLES: [&str; 7] = [
    "NAME", "MODE", "SCHEDULE", "RUN", "LAST RUN", "RESULT", "NEXT RUN",
];
/// Nothing to say.
const NOTHING: &str = "-";

pub(super) async fn run(client: &Client, out: &mut dyn Write) -> anyhow::Result<()> {
    let answer = client.get("/skep/v1/jobs").await?;
    let jobs = answer.as_array().into_iter().flatten();
    let titles = TITLES.map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(titles).chain(jobs.map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or(0)).collect();
    for line in &lines {
        for (cell, width) in line.iter().zip(&widths) {
            write!(out, "{cell:<width$}   ")?;
        }
        writeln!(out, "{}", line[6])?;
    }
    Ok(())
}

fn cells(job: &Value) -> [String; 7] {
    let text = |key: &str| job[key].as_str().unwrap_or(NOTHING).to_owned();
    let schedule = match job["TimeZone"].as_str() {
        Some(zone) => format!("{} {zone}", text("Schedule")),
        None => text("Schedule"),
    };
    let has_run = job["LastRun"].is_string();
    let is_suspended = job["IsSuspended"] == true;
    let result = format!(
        "{} ({}/{})",
        text("Result"),
        job["Completed"],
        job["Wanted"]
    );
    [
        text("Name"),
        text("Mode"),
        schedule,
        if has_run {
            job["Run"].to_string()
        } else {
            NOTHING.to_owned()
        },
        text("LastRun"),
        if has_run { result } else { NOTHING.to_owned() },
        if is_suspended {
            "suspended".to_owned()
        } else {
            text("NextRun")
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn jobs_are_told_in_a_table() {
        let jobs = r#"[{"ID":"1","Name":"night","Mode":"replicated-job","Schedule":"0 2 * * *",
            "TimeZone":"Europe/Berlin","IsSuspended":false,"Run":3,"LastRun":"2026-11-21T01:00:00Z",
            "Result":"complete","Running":0,"Completed":1,"Wanted":1,
            "NextRun":"2026-11-22T02:00:00+01:00"},
            {"ID":"2","Name":"off","Mode":"global-job","Schedule":"@daily","IsSuspended":true,
            "Run":0,"Result":"none","Running":0,"Completed":0,"Wanted":0}]"#;
        let daemon = FakeDaemon::new(vec![("GET /skep/v1/jobs ", 200, jobs.to_owned())]);
        let mut out = Vec::new();
        run(&daemon.client(), &mut out).await.unwrap();
        let expected = "\
NAME    MODE             SCHEDULE                  RUN   LAST RUN               RESULT           NEXT RUN
night   replicated-job   0 2 * * * Europe/Berlin   3     2026-11-21T01:00:00Z   complete (1/1)   \
2026-11-22T02:00:00+01:00
off     global-job       @daily                    -     -                      -                suspended
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        daemon.requests().await;
    }
}
