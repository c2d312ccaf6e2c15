//! `skep service ls`

use std::io::Write;

use serde_json::Value;
use skep_docker_api::client::Client;

use crate::table;

pub(super) async fn run(client: &Client, out: &mut dyn Write) -> anyhow::Result<()> {
    let services = client.get("/skep/v1/services").await?;
    let services = services.as_array().into_iter().flatten();
    let headings = ["NAME", "MODE", "REPLICAS", "IMAGE", "CONDITION"].map(str::to_owned);
    let rows: Vec<_> = [headings].into_iter().chain(services.map(row)).collect();
    table::write(&rows, out)?;
    Ok(())
}

fn row(service: &Value) -> [String; 5] {
    let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
    let found = ["Conditions", "Waits"].map(|key| service[key].as_array());
    let found = found.into_iter().flatten().flatten();
    let conditions: Vec<&str> = found.filter_map(Value::as_str).collect();
    let replicas = format!("{}/{}", service["Running"], service["Desired"]);
    [
        text("Name"),
        text("Mode"),
        replicas,
        text("Image"),
        conditions.join("; "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_daemon::FakeDaemon;

    #[tokio::test]
    async fn what_is_wrong_is_said_beside_the_service() {
        let services = r#"[{"ID":"s1","Name":"web","Mode":"replicated","Image":"app:2",
            "Running":1,"Desired":3,
            "Conditions":["slot 1 is crash-looping: exit 1 (7 failures)","slot 2 has no restart attempts left"],
            "Waits":["slot 3: no suitable node"]},
            {"ID":"s2","Name":"db","Mode":"global","Image":"db","Running":1,"Desired":1,"Conditions":[]}]"#;
        let daemon = FakeDaemon::new(vec![("GET /skep/v1/services ", 200, services.to_owned())]);
        let mut out = Vec::new();
        run(&daemon.client(), &mut out).await.unwrap();
        daemon.requests().await;
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME   MODE         REPLICAS   IMAGE   CONDITION\n\
             web    replicated   1/3        app:2   slot 1 is crash-looping: exit 1 (7 failures); slot 2 \
             has no restart attempts left; slot 3: no suitable node\n\
             db     global       1/1        db\n"
        );
    }
}
