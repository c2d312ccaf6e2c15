//! Pulling from Debian's docker-registry, filled by skopeo, with and without passwords.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{
    fixture::{Fixture, busybox, run},
    pulls::pull,
};
use crate::image::{ErrorKind, Reference, RegistryAuth};

/// A running registry, stopped when dropped.
struct Registry {
    process: Child,
    directory: TempDir,
    address: String,
}

impl Registry {
    fn start(with_password: bool) -> Self {
        let directory = TempDir::new().expect("directory");
        let root = directory.path().display();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\nhttp:\n  addr: 127.0.0.1:0\n"
        );
        if with_password {
            let file = format!("{root}/htpasswd");
            run("htpasswd", &["-Bbc", &file, "user", "secret"]);
            config.push_str(&format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {file}\n"
            ));
        }
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).expect("config");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let mut lines = BufReader::new(process.stderr.take().expect("stderr")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("listening on ")?;
                Some(rest.split(['"', ' ', ',']).next()?.to_owned())
            })
            .expect("the registry tells its address");
        // Somebody must read on, or the registry blocks.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            directory,
            address,
        }
    }

    /// Pushes an image with skopeo.
    fn push(&self, name: &str, credentials: &[&str]) -> String {
        let image = busybox("pushed:1");
        let archive = self.directory.path().join("image.tar");
        std::fs::write(&archive, image.docker_archive()).expect("archive");
        let source = format!("docker-archive:{}", archive.display());
        let target = format!("docker://{}/{name}", self.address);
        let fixed = ["copy", "--insecure-policy", "--dest-tls-verify=false"];
        run(
            "skopeo",
            &[&fixed[..], credentials, &[&source, &target]].concat(),
        );
        image.id()
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address)
            .parse()
            .expect("reference")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn image_from_a_real_registry_is_the_one_pushed() {
    let registry = Registry::start(false);
    let id = registry.push("team/busybox:1", &[]);
    let fixture = Fixture::new();
    let reference = registry.reference("team/busybox:1");
    let (result, events) = pull(&fixture.store, &reference, None).await;
    let pulled = result.expect("pull");
    assert_eq!(pulled.id.to_string(), id);
    let last = events.last().expect("events").status.clone();
    assert_eq!(
        last,
        format!(
            "Status: Downloaded newer image for {}",
            reference.familiar()
        )
    );
    let image = fixture.store.image(pulled.id).expect("image");
    assert!(image.layer_dirs()[0].join("bin/busybox").is_file());
    fixture.check_clean();

    let remote = fixture
        .store
        .resolve_remote(&reference, None)
        .await
        .expect("remote");
    assert_eq!(remote.digest, pulled.digest);
    assert_eq!(remote.platforms[0].to_string(), "linux/amd64");

    for name in ["team/busybox:none", "none:1"] {
        let reference = registry.reference(name);
        let error = pull(&fixture.store, &reference, None)
            .await
            .0
            .expect_err("unknown");
        assert_eq!(
            error.to_string(),
            format!(
                "manifest for {} not found: manifest unknown: manifest unknown",
                reference.familiar()
            )
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn registry_with_passwords_lets_in_who_knows_one() {
    let registry = Registry::start(true);
    let id = registry.push("private:1", &["--dest-creds", "user:secret"]);
    let reference = registry.reference("private:1");
    let auth = |password: &str| RegistryAuth {
        username: "user".to_owned(),
        password: password.to_owned(),
        ..RegistryAuth::default()
    };
    let fixture = Fixture::new();
    let error = pull(&fixture.store, &reference, None)
        .await
        .0
        .expect_err("anonymous");
    let url = format!("http://{}/v2/private/manifests/1", registry.address);
    assert_eq!(
        error.to_string(),
        format!("Head \"{url}\": no basic auth credentials")
    );
    let error = pull(&fixture.store, &reference, Some(&auth("wrong")))
        .await
        .0
        .expect_err("wrong");
    let expect = format!("Head \"{url}\": unauthorized: authentication required");
    assert_eq!(
        (error.to_string(), error.kind()),
        (expect, ErrorKind::Unauthorized)
    );
    let (result, _) = pull(&fixture.store, &reference, Some(&auth("secret"))).await;
    assert_eq!(result.expect("pull").id.to_string(), id);
    let secret = auth("secret");
    assert!(!format!("{secret:?}").contains("secret"));
    fixture.check_clean();
}
