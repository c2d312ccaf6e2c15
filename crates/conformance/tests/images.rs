//! Images: archives in and out, names, removal, and pulling from a registry.

use std::{fs, time::Duration};

use skep_conformance::{Node, until};

#[test]
fn images_are_loaded_named_shown_saved_and_removed() {
    let node = Node::start();
    let list = node.docker_ok("image ls");
    assert!(
        list.contains("skep/busybox") && list.contains("latest"),
        "{list}"
    );
    let id = node.docker_ok("image inspect -f '{{.Id}}' skep/busybox");
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(
        node.docker_ok("image inspect -f '{{json .Config.Cmd}}' skep/busybox"),
        "[\"sh\"]"
    );
    node.docker_ok("tag skep/busybox other/name:v2");
    assert_eq!(
        node.docker_ok("image inspect -f '{{.Id}}' other/name:v2"),
        id
    );
    node.docker_ok("history other/name:v2");
    let untagged = node.docker_ok("image rm other/name:v2");
    assert!(
        untagged.contains("Untagged: other/name:v2") && !untagged.contains("Deleted"),
        "{untagged}"
    );

    let archive = node.dir().join("saved.tar");
    node.docker_ok(&format!("save -o {} skep/httpd", archive.display()));
    node.docker_ok("image rm skep/httpd");
    let gone = node.docker_fails("image inspect skep/httpd");
    assert!(gone.contains("No such image"), "{gone}");
    let loaded = node.docker_ok(&format!("load -i {}", archive.display()));
    assert!(
        loaded.contains("Loaded image: skep/httpd:latest"),
        "{loaded}"
    );
    node.create("--name web skep/httpd");
    assert_eq!(node.exec("web", "cat /www/index.html"), "it works");
    let used = node.docker_fails("image rm skep/httpd");
    assert!(
        used.contains("container") && used.contains("conflict"),
        "{used}"
    );
}

#[test]
fn file_trees_are_imported_as_images() {
    let node = Node::start();
    let tree = node.dir().join("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    fs::write(tree.join("note"), "from a tree").unwrap();
    let archive = node.dir().join("tree.tar");
    node.inside_ok(&format!(
        "tar -C {} -cf {} .",
        tree.display(),
        archive.display()
    ));
    node.docker_ok(&format!("import {} skep/tree:1", archive.display()));
    node.create("--name tree --restart-condition none skep/tree:1 /bin/busybox cat /note");
    node.logged("tree", "from a tree");
}

#[test]
fn unused_images_are_pruned() {
    let node = Node::start();
    node.create("--name web skep/busybox sleep 1000");
    node.running("web", 1);
    let pruned = node.docker_ok("image prune -af");
    assert!(pruned.contains("skep/httpd"), "{pruned}");
    assert_eq!(node.docker_ok("image ls -q | wc -l"), "1");
    node.running("web", 1);
}

/// Serves a registry on the node's port 5000 with `skep/busybox` in it; `login` is `user:password`.
fn serve_registry(node: &Node, login: Option<&str>) -> std::process::Child {
    let dir = node.dir().join("registry");
    fs::create_dir(&dir).expect("a new directory");
    let path = dir.display();
    let mut config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {path}/data\nhttp:\n  addr: 127.0.0.1:5000\n"
    );
    let mut skopeo = String::from("--dest-no-creds");
    if let Some(login) = login {
        let (user, password) = login.split_once(':').expect("a user and a password");
        node.inside_ok(&format!(
            "htpasswd -Bbn {user} {password} > {path}/htpasswd"
        ));
        config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}/htpasswd\n");
        skopeo = format!("--dest-creds {login}");
    }
    let file = dir.join("config.yml");
    fs::write(&file, config).expect("a file");
    let server = node.spawn_inside(
        "docker-registry",
        &["serve", file.to_str().expect("a plain path")],
    );
    let archive = skep_conformance::images().join("busybox.tar");
    let copy = format!(
        "skopeo copy --insecure-policy -q --dest-tls-verify=false {skopeo} docker-archive:{} docker://127.0.0.1:5000/skep/pulled:1",
        archive.display()
    );
    until(
        "the registry has the image",
        Duration::from_secs(40),
        || {
            let output = node.inside(&copy);
            if output.status == 0 {
                Ok(())
            } else {
                Err(output.text())
            }
        },
    );
    server
}

#[test]
fn images_are_pulled_from_a_registry() {
    let node = Node::start();
    let mut server = serve_registry(&node, None);
    let pulled = node.docker_ok("pull 127.0.0.1:5000/skep/pulled:1");
    assert!(pulled.contains("Digest: sha256:"), "{pulled}");
    assert!(
        pulled.contains("Status: Downloaded newer image for 127.0.0.1:5000/skep/pulled:1"),
        "{pulled}"
    );
    let again = node.docker_ok("pull 127.0.0.1:5000/skep/pulled:1");
    assert!(again.contains("Status: Image is up to date for"), "{again}");
    let missing = node.docker_fails("pull 127.0.0.1:5000/skep/none:1");
    assert!(
        missing.contains("not found") || missing.contains("manifest unknown"),
        "{missing}"
    );

    node.docker_ok("image rm 127.0.0.1:5000/skep/pulled:1");
    node.docker_ok(
        "service create -d --stop-signal KILL --name web 127.0.0.1:5000/skep/pulled:1 sleep 1000",
    );
    let image =
        node.docker_ok("service inspect -f '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web");
    assert!(image.contains("@sha256:"), "the digest is pinned: {image}");
    node.running("web", 1);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn registries_with_a_password_are_used_with_it_only() {
    let node = Node::start();
    let mut server = serve_registry(&node, Some("alice:sesame"));
    let refused = node.docker_fails("pull 127.0.0.1:5000/skep/pulled:1");
    assert!(
        refused.contains("no basic auth credentials") || refused.contains("unauthorized"),
        "{refused}"
    );
    // What `docker login` stores; the command itself would ask the registry from outside the node's network.
    let config = "{\"auths\":{\"127.0.0.1:5000\":{\"auth\":\"YWxpY2U6c2VzYW1l\"}}}";
    fs::create_dir_all(node.dir().join("docker")).unwrap();
    fs::write(node.dir().join("docker/config.json"), config).unwrap();
    node.docker_ok("service create -d --with-registry-auth --stop-signal KILL --name web 127.0.0.1:5000/skep/pulled:1 sleep 1000");
    node.running("web", 1);
    node.docker_ok("pull 127.0.0.1:5000/skep/pulled:1");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn stacks_are_pulled_with_the_login_of_the_docker_command() {
    let node = Node::start();
    let mut server = serve_registry(&node, Some("alice:sesame"));
    let config = "{\"auths\":{\"127.0.0.1:5000\":{\"auth\":\"YWxpY2U6c2VzYW1l\"}}}";
    fs::create_dir_all(node.dir().join("docker")).unwrap();
    fs::write(node.dir().join("docker/config.json"), config).unwrap();
    let file = node.dir().join("f.yml");
    let text = "services: {web: {image: '127.0.0.1:5000/skep/pulled:1', command: sleep 1000}}";
    fs::write(&file, text).unwrap();
    let stack = |line: &str| {
        let (skep, socket) = (skep_conformance::binary(), node.socket());
        let (skep, socket, dir) = (skep.display(), socket.display(), node.dir().display());
        let variables = format!("DOCKER_CONFIG={dir}/docker SKEP_HOST=unix://{socket}");
        node.inside_ok(&format!("{variables} {skep} stack {line}"))
    };
    let file = file.display();
    stack(&format!(
        "deploy --with-registry-auth --detach=false --timeout 60s -c {file} app"
    ));
    let spec = node.json("/services/app_web")["Spec"].clone();
    let image = spec["TaskTemplate"]["ContainerSpec"]["Image"]
        .as_str()
        .unwrap();
    assert!(
        image.starts_with("127.0.0.1:5000/skep/pulled:1@sha256:"),
        "{image}"
    );
    // What is stored of the stack tells nobody the password.
    let kept = node.json("/skep/v1/stacks/app/revisions/1").to_string();
    assert!(
        !kept.contains("sesame") && !kept.contains("RegistryAuth"),
        "{kept}"
    );
    // With the digest known nothing changes, and without it neither.
    for more in ["--with-registry-auth", "--resolve-image never"] {
        assert_eq!(
            stack(&format!("deploy {more} -c {file} app")),
            "app: revision 1"
        );
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
