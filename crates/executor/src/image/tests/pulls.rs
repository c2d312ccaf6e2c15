//! Pulling from a registry that misbehaves as it is told.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    fake_registry::{Answer, Content, FakeRegistry, Request, find, publish, publish_manifest},
    fixture::{Fixture, TestImage, layer, tiny},
};
use crate::image::{
    Digest, Error, ErrorKind, ImageStore, Platform, PullEvent, Pulled, Reference, RegistryAuth,
    Result, StoreConfig,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Pulls for linux/amd64 and collects what was told.
pub(super) async fn pull(
    store: &ImageStore,
    reference: &Reference,
    auth: Option<&RegistryAuth>,
) -> (Result<Pulled>, Vec<PullEvent>) {
    let (tx, mut rx) = mpsc::channel(1024);
    let platform: Platform = "linux/amd64".parse().expect("platform");
    let result = store.pull(reference, Some(&platform), auth, tx).await;
    let mut events = Vec::new();
    while let Some(event) = rx.recv().await {
        events.push(event);
    }
    (result, events)
}

#[track_caller]
fn check_error(result: Result<Pulled>, kind: ErrorKind, expect: &str) {
    let error = result.expect_err(expect);
    assert_eq!((error.to_string().as_str(), error.kind()), (expect, kind));
}

/// Incompressible, so that its blob is about as large.
fn large() -> TestImage {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..3 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect();
    TestImage::new(vec![layer(&[("noise", &noise)])], &json!({}), "")
}

fn blob_path(image: &TestImage, name: &str) -> String {
    let blob = Digest::of(&super::fixture::gzip(&image.layers[0]));
    format!("/v2/{name}/blobs/{blob}")
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn index_leads_to_the_image_of_the_platform() {
    let mut content = Content::new();
    let (amd64, arm64) = (tiny("amd64", ""), tiny("arm64", ""));
    let mut entries = Vec::new();
    for (image, architecture) in [(&arm64, "arm64"), (&amd64, "amd64")] {
        let mut entry = publish(&mut content, "team/app", "x", image);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entries.push(entry);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    let top = publish_manifest(&mut content, "team/app", "1", INDEX, &index);
    let registry = FakeRegistry::with(content).await;
    let fixture = Fixture::new();
    let reference = registry.reference("team/app:1");
    let (result, events) = pull(&fixture.store, &reference, None).await;
    let pulled = result.expect("pull");
    assert_eq!((pulled.id.to_string(), pulled.is_new), (amd64.id(), true));
    assert_eq!(json!(pulled.digest.to_string()), top["digest"]);

    let details = fixture
        .store
        .inspect(&reference.familiar())
        .expect("inspect");
    assert_eq!(
        details.repo_digests,
        [format!("{}/team/app@{}", registry.address, pulled.digest)]
    );
    let told: Vec<&str> = events.iter().map(|event| event.status.as_str()).collect();
    let digest = format!("Digest: {}", pulled.digest);
    let status = format!(
        "Status: Downloaded newer image for {}/team/app:1",
        registry.address
    );
    assert_eq!(
        told,
        [
            "Pulling from team/app",
            "Pulling fs layer",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete",
            &digest,
            &status,
        ]
    );
    assert_eq!(events[0].id.as_deref(), Some("1"));
    assert_eq!(events[1].id.as_ref().map(String::len), Some(12));
    let figure = events[2].progress.expect("figure");
    assert_eq!(figure.current, figure.total);

    let (result, events) = pull(&fixture.store, &reference, None).await;
    assert!(!result.expect("pull again").is_new);
    let told: Vec<&str> = events.iter().map(|event| event.status.as_str()).collect();
    let status = format!(
        "Status: Image is up to date for {}/team/app:1",
        registry.address
    );
    assert_eq!(
        told,
        ["Pulling from team/app", "Already exists", &digest, &status]
    );

    let by_digest: Reference = format!("{}/team/app@{}", registry.address, pulled.digest)
        .parse()
        .expect("reference");
    assert_eq!(
        pull(&fixture.store, &by_digest, None)
            .await
            .0
            .expect("pull")
            .id,
        pulled.id
    );

    let remote = fixture
        .store
        .resolve_remote(&reference, None)
        .await
        .expect("remote");
    let shown: Vec<String> = remote.platforms.iter().map(ToString::to_string).collect();
    assert_eq!(
        (remote.digest, remote.media_type.as_str()),
        (pulled.digest, INDEX)
    );
    assert_eq!(shown, ["linux/arm64", "linux/amd64"]);

    let s390x: Platform = "linux/s390x".parse().expect("platform");
    let (tx, _rx) = mpsc::channel(16);
    check_error(
        fixture.store.pull(&reference, Some(&s390x), None, tx).await,
        ErrorKind::NotFound,
        "no matching manifest for linux/s390x in the manifest list entries",
    );
    fixture.check_clean();
}

#[tokio::test]
async fn broken_download_continues_where_it_stopped() {
    let mut content = Content::new();
    let image = large();
    publish(&mut content, "big", "1", &image);
    let path = blob_path(&image, "big");
    let watched = path.clone();
    let registry = FakeRegistry::start(move |request, before| {
        let mut answer = find(&content, request);
        if request.path == watched && before < 2 {
            answer.cut_after = Some(1 << 20);
        }
        answer
    })
    .await;
    let fixture = Fixture::new();
    let (result, _) = pull(&fixture.store, &registry.reference("big:1"), None).await;
    assert_eq!(result.expect("pull").id.to_string(), image.id());
    let ranges: Vec<Option<String>> = registry
        .requests()
        .iter()
        .filter(|request| request.path == path)
        .map(|request| request.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert_eq!(ranges[0], None);
    for range in &ranges[1..] {
        let range = range.as_deref().expect("a continued request has a range");
        let start: u64 = range[6..range.len() - 1].parse().expect("start");
        assert!(start > 512 << 10, "{range}");
    }
    fixture.check_clean();
}

#[tokio::test]
async fn download_continues_after_a_restart_and_despite_a_bad_beginning() {
    let mut content = Content::new();
    let image = large();
    publish(&mut content, "big", "1", &image);
    let path = blob_path(&image, "big");
    let blob = content[&path].1.clone();
    let registry = FakeRegistry::with(content).await;
    let partial = format!("partial/{}", Digest::of(&blob).hex());

    let fixture = Fixture::new();
    std::fs::write(fixture.root().join(&partial), &blob[..1000]).expect("partial");
    pull(&fixture.store, &registry.reference("big:1"), None)
        .await
        .0
        .expect("pull");
    assert_eq!(
        registry.requests().last().expect("request").headers["range"],
        "bytes=1000-"
    );
    assert!(!fixture.root().join(&partial).exists());

    let fixture = Fixture::new();
    std::fs::write(fixture.root().join(&partial), vec![0; 1000]).expect("partial");
    let (result, _) = pull(&fixture.store, &registry.reference("big:1"), None).await;
    assert_eq!(result.expect("pull").id.to_string(), image.id());
    let last = registry.requests().pop().expect("request");
    assert!(
        !last.headers.contains_key("range"),
        "the bad beginning was thrown away: {last:?}"
    );
    fixture.check_clean();
}

#[tokio::test]
async fn registries_without_ranges_are_asked_again_from_the_start() {
    let mut content = Content::new();
    let image = large();
    publish(&mut content, "big", "1", &image);
    let path = blob_path(&image, "big");
    let registry = FakeRegistry::start(move |request, before| {
        let plain = Request {
            path: request.path.clone(),
            ..Request::default()
        };
        let mut answer = find(&content, &plain);
        if request.path == path && before == 0 {
            answer.cut_after = Some(1 << 20);
        }
        answer
    })
    .await;
    let fixture = Fixture::new();
    let (result, _) = pull(&fixture.store, &registry.reference("big:1"), None).await;
    assert_eq!(result.expect("pull").id.to_string(), image.id());
}

#[tokio::test]
async fn transient_failures_are_tried_again_and_lasting_ones_told() {
    let mut content = Content::new();
    publish(&mut content, "app", "1", &tiny("x", ""));
    let registry = FakeRegistry::start(move |request, before| match before {
        0 if request.path != "/v2/" => Answer::status(503, &json!({})),
        _ => find(&content, request),
    })
    .await;
    let fixture = Fixture::new();
    pull(&fixture.store, &registry.reference("app:1"), None)
        .await
        .0
        .expect("pull");

    let config = StoreConfig {
        pull_tries: 2,
        ..StoreConfig::default()
    };
    let registry = FakeRegistry::start(|_, _| Answer::error(500, "UNKNOWN", "out of order")).await;
    let fixture = Fixture::with(config);
    check_error(
        pull(&fixture.store, &registry.reference("app:1"), None)
            .await
            .0,
        ErrorKind::Internal,
        "received unexpected HTTP status: 500 Internal Server Error: out of order",
    );
    assert_eq!(registry.count("/manifests/1"), 2);
}

#[tokio::test]
async fn lies_of_a_registry_are_found_out() {
    let mut honest = Content::new();
    let image = tiny("x", "");
    publish(&mut honest, "app", "1", &image);
    let path = blob_path(&image, "app");
    let tamper = |path: &str, bytes: Vec<u8>| {
        let mut content = honest.clone();
        content.get_mut(path).expect("path").1 = bytes;
        content
    };
    let length = honest[&path].1.len();
    let blob = Digest::of(&honest[&path].1);
    let longer =
        format!("registry broke the protocol: layer {blob} is longer than its manifest says");
    let shorter =
        format!("registry broke the protocol: layer {blob} is shorter than its manifest says");
    let other = vec![7; length];
    let mismatch = format!(
        "digest mismatch: expected {blob}, got {}",
        Digest::of(&other)
    );
    let config = format!("/v2/app/blobs/{}", image.id());
    let config_mismatch = format!(
        "digest mismatch: expected {}, got {}",
        image.id(),
        Digest::of(b"{}")
    );
    for (content, expect) in [
        (tamper(&path, other), mismatch),
        (tamper(&path, vec![7; length + 1]), longer),
        (tamper(&path, vec![7; length - 1]), shorter),
        (tamper(&config, b"{}".to_vec()), config_mismatch),
        (
            tamper("/v2/app/manifests/1", vec![b' '; 5 << 20]),
            "answer of registry exceeds the limit of 4194304 bytes".to_owned(),
        ),
    ] {
        let registry = FakeRegistry::with(content).await;
        let fixture = Fixture::new();
        let (result, _) = pull(&fixture.store, &registry.reference("app:1"), None).await;
        assert_eq!(result.expect_err(&expect).to_string(), expect);
        assert!(
            fixture
                .store
                .list(&crate::image::Filters::default())
                .expect("list")
                .is_empty()
        );
    }
    let (name, manifest) = ("app@", "/v2/app/manifests/");
    let wanted = Digest::of(b"wanted");
    let mut content = honest.clone();
    content.insert(
        format!("{manifest}{wanted}"),
        honest[&format!("{manifest}1")].clone(),
    );
    let actual = Digest::of(&content[&format!("{manifest}{wanted}")].1);
    let registry = FakeRegistry::with(content).await;
    let reference = registry.reference(&format!("{name}{wanted}"));
    let (result, _) = pull(&Fixture::new().store, &reference, None).await;
    let expect = format!("registry broke the protocol: manifest {wanted} has digest {actual}");
    assert_eq!(result.expect_err(&expect).to_string(), expect);
}

/// Answers 401 with a challenge unless the header is right.
fn guarded(
    content: Content,
    wanted: &'static str,
    challenge: String,
) -> impl Fn(&Request) -> Answer {
    move |request| {
        if request
            .headers
            .get("authorization")
            .is_some_and(|value| value == wanted)
        {
            return find(&content, request);
        }
        Answer::error(401, "UNAUTHORIZED", "authentication required")
            .header("www-authenticate", &challenge)
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn tokens_are_fetched_as_the_registry_says() {
    let mut content = Content::new();
    let image = tiny("x", "");
    publish(&mut content, "team/app", "1", &image);
    let tokens = FakeRegistry::start(|request, _| {
        let is_refresh =
            request.method == "POST" && request.body.contains("refresh_token=secret%2Fid");
        let is_basic = request
            .headers
            .get("authorization")
            .is_some_and(|h| h == "Basic bWU6cHc=");
        match (is_refresh, is_basic) {
            (true, _) => Answer::status(200, &json!({ "access_token": "good", "expires_in": 300 })),
            (_, true) => Answer::status(200, &json!({ "token": "good" })),
            _ if request.headers.contains_key("authorization") => Answer::status(401, &json!({})),
            _ => Answer::status(200, &json!({ "token": "anonymous" })),
        }
    })
    .await;
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"fake\",scope=\"repository:team/app:pull\"",
        tokens.address
    );
    let guard = guarded(content, "Bearer good", challenge);
    let registry = FakeRegistry::start(move |request, _| guard(request)).await;
    let reference = registry.reference("team/app:1");
    let auth = |username: &str, password: &str, identity_token: &str| RegistryAuth {
        username: username.into(),
        password: password.into(),
        identity_token: identity_token.into(),
        server: String::new(),
    };

    let basic = auth("me", "pw", "");
    let pulled = pull(&Fixture::new().store, &reference, Some(&basic))
        .await
        .0
        .expect("basic");
    assert_eq!(pulled.id.to_string(), image.id());
    let request = &tokens.requests()[0];
    assert_eq!(
        request.path,
        "/token?scope=repository%3Ateam%2Fapp%3Apull&service=fake"
    );
    assert_eq!(
        tokens.requests().len(),
        1,
        "one token serves the whole pull"
    );

    let identity = auth("", "", "secret/id");
    pull(&Fixture::new().store, &reference, Some(&identity))
        .await
        .0
        .expect("identity token");

    check_error(
        pull(
            &Fixture::new().store,
            &reference,
            Some(&auth("me", "wrong", "")),
        )
        .await
        .0,
        ErrorKind::Unauthorized,
        &format!(
            "Get \"http://{}/token\": unauthorized: incorrect username or password",
            tokens.address
        ),
    );
    check_error(
        pull(&Fixture::new().store, &reference, None).await.0,
        ErrorKind::NotFound,
        &format!(
            "pull access denied for {}/team/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            registry.address
        ),
    );
}

#[tokio::test]
async fn revoked_token_is_replaced_in_the_middle_of_a_pull() {
    let mut content = Content::new();
    let image = tiny("x", "");
    publish(&mut content, "app", "1", &image);
    let tokens = FakeRegistry::start(|_, before| {
        Answer::status(200, &json!({ "token": format!("t{before}") }))
    })
    .await;
    let challenge = format!("Bearer realm=\"http://{}/token\"", tokens.address);
    let registry = FakeRegistry::start(move |request, _| {
        // The manifest is worth the first token, everything after it the second.
        let wanted = if request.path.contains("manifests") {
            "Bearer t0"
        } else {
            "Bearer t1"
        };
        if request
            .headers
            .get("authorization")
            .is_some_and(|value| value == wanted)
        {
            return find(&content, request);
        }
        Answer::error(401, "UNAUTHORIZED", "").header("www-authenticate", &challenge)
    })
    .await;
    let (result, _) = pull(&Fixture::new().store, &registry.reference("app:1"), None).await;
    assert_eq!(result.expect("pull").id.to_string(), image.id());
    assert_eq!(tokens.requests().len(), 2);
}

#[tokio::test]
async fn errors_are_told_in_dockers_words() {
    let registry = FakeRegistry::start(|request, _| match request.path.as_str() {
        "/v2/denied/manifests/latest" => {
            Answer::error(403, "DENIED", "requested access to the resource is denied")
        }
        "/v2/limited/manifests/latest" => Answer::error(429, "TOOMANYREQUESTS", "slow down"),
        _ => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    })
    .await;
    let fixture = Fixture::with(StoreConfig {
        pull_tries: 1,
        ..StoreConfig::default()
    });
    let address = registry.address;
    for (name, kind, expect) in [
        (
            "denied",
            ErrorKind::NotFound,
            format!(
                "pull access denied for {address}/denied, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
            ),
        ),
        (
            "limited",
            ErrorKind::Unavailable,
            "toomanyrequests: slow down".to_owned(),
        ),
        (
            "gone",
            ErrorKind::NotFound,
            format!(
                "manifest for {address}/gone:latest not found: manifest unknown: manifest unknown"
            ),
        ),
    ] {
        check_error(
            pull(&fixture.store, &registry.reference(name), None)
                .await
                .0,
            kind,
            &expect,
        );
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = closed.local_addr().expect("address");
    drop(closed);
    let reference = format!("{address}/x:1").parse().expect("reference");
    check_error(
        pull(&fixture.store, &reference, None).await.0,
        ErrorKind::Unavailable,
        &format!("Get \"http://{address}/v2/\": dial tcp {address}: connect: connection refused"),
    );
}

/// The daemon pulls in tasks of its own, so the future must be one that can be spawned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_run_in_spawned_tasks() {
    let mut content = Content::new();
    let image = tiny("x", "");
    publish(&mut content, "app", "1", &image);
    let registry = FakeRegistry::with(content).await;
    let fixture = Fixture::new();
    let (store, reference) = (fixture.store.clone(), registry.reference("app:1"));
    let task = tokio::spawn(async move {
        let (tx, _rx) = mpsc::channel(64);
        let remote = store.resolve_remote(&reference, None).await?;
        let pulled = store.pull(&reference, None, None, tx).await?;
        Ok::<_, Error>((remote, pulled))
    });
    let (remote, pulled) = task.await.expect("task").expect("pull");
    assert_eq!(remote.digest, pulled.digest);
}

#[tokio::test]
async fn two_pulls_at_once_download_a_layer_once() {
    let mut content = Content::new();
    let image = large();
    publish(&mut content, "big", "1", &image);
    publish(&mut content, "big", "2", &image);
    let path = blob_path(&image, "big");
    let registry = FakeRegistry::with(content).await;
    let fixture = Fixture::new();
    let (one, two) = (registry.reference("big:1"), registry.reference("big:2"));
    let (one, two) = tokio::join!(
        pull(&fixture.store, &one, None),
        pull(&fixture.store, &two, None)
    );
    assert_eq!(one.0.expect("one").id, two.0.expect("two").id);
    assert_eq!(registry.count(&path), 1);
    fixture.check_clean();
}

#[tokio::test]
async fn layers_come_three_at_a_time_and_gone_listeners_do_no_harm() {
    let layers: Vec<Vec<u8>> = (0..8)
        .map(|n| layer(&[("n", format!("{n}").as_bytes())]))
        .collect();
    let image = TestImage::new(layers, &json!({}), "");
    let mut content = Content::new();
    publish(&mut content, "many", "1", &image);
    let registry = FakeRegistry::with(content).await;
    let fixture = Fixture::new();
    let (tx, rx) = mpsc::channel(1);
    drop(rx);
    fixture
        .store
        .pull(&registry.reference("many:1"), None, None, tx)
        .await
        .expect("pull");
    let fixture = Fixture::new();
    let (result, events) = pull(&fixture.store, &registry.reference("many:1"), None).await;
    let image = fixture
        .store
        .image(result.expect("pull").id)
        .expect("image");
    for (n, directory) in image.layer_dirs().iter().enumerate() {
        assert_eq!(
            std::fs::read(directory.join("n")).expect("n"),
            n.to_string().as_bytes()
        );
    }
    let count = |status: &str| events.iter().filter(|event| event.status == status).count();
    assert_eq!(
        (
            count("Pulling fs layer"),
            count("Waiting"),
            count("Pull complete")
        ),
        (8, 5, 8)
    );
}

/// Garbage collection in the middle of a pull takes nothing the pull is about to name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_during_a_pull_takes_nothing_from_it() {
    let layers: Vec<Vec<u8>> = (0..6)
        .map(|n| layer(&[("n", format!("{n}").as_bytes())]))
        .collect();
    let image = TestImage::new(layers, &json!({}), "");
    let mut content = Content::new();
    publish(&mut content, "many", "1", &image);
    let fixture = Fixture::new();
    let store = Arc::new(fixture.store.clone());
    let collector = Arc::clone(&store);
    // Every request is an occasion.
    let registry = FakeRegistry::start(move |request, _| {
        collector.collect().expect("collect");
        find(&content, request)
    })
    .await;
    let (result, _) = pull(&fixture.store, &registry.reference("many:1"), None).await;
    let image = fixture
        .store
        .image(result.expect("pull").id)
        .expect("image");
    assert!(
        image
            .layer_dirs()
            .iter()
            .all(|directory| directory.join("n").is_file())
    );
    fixture.check_clean();
}

/// A registry's manifest that is no image says so.
#[tokio::test]
async fn artifacts_are_not_images() {
    let mut content = Content::new();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let empty = json!({
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": Digest::of(b"{}").to_string(),
        "size": 2,
    });
    let artifact: Value =
        json!({ "schemaVersion": 2, "mediaType": kind, "config": empty, "layers": [] });
    publish_manifest(&mut content, "chart", "1", kind, &artifact);
    let registry = FakeRegistry::with(content).await;
    let (result, _) = pull(&Fixture::new().store, &registry.reference("chart:1"), None).await;
    let error = result.expect_err("artifact");
    assert_eq!(
        error.to_string(),
        "unsupported media type application/vnd.oci.empty.v1+json"
    );
}
