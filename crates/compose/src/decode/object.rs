//! What services share: networks, volumes, secrets and configs.

use skep_model::{
    redact::Redacted,
    spec::{CONFIG_BYTES_MAX, SECRET_BYTES_MAX},
};

use super::{
    Decoder,
    field::{At, Fields},
};
use crate::{
    node::Value,
    project::{Content, FileObject, Ipam, IpamPool, Network, Volume},
};

// === impl Decoder ===

impl Decoder<'_, '_> {
    pub(super) fn network(&mut self, at: &At<'_>) -> Network {
        let Some(mut fields) = self.object(at) else {
            return Network::default();
        };
        let network = Network {
            name: self.string(fields.take("name")),
            is_external: self.boolean(fields.take("external")).unwrap_or_default(),
            driver: self.string(fields.take("driver")),
            driver_opts: self.pairs(fields.take("driver_opts")),
            ipam: self.ipam(fields.take("ipam")),
            is_internal: self.boolean(fields.take("internal")).unwrap_or_default(),
            is_attachable: self.boolean(fields.take("attachable")).unwrap_or_default(),
            is_ipv4: self.boolean(fields.take("enable_ipv4")),
            is_ipv6: self.boolean(fields.take("enable_ipv6")),
            labels: self.pairs(fields.take("labels")),
        };
        self.finish(fields, &[], &[]);
        self.external(at, network.is_external);
        network
    }

    pub(super) fn volume(&mut self, at: &At<'_>) -> Volume {
        let Some(mut fields) = self.object(at) else {
            return Volume::default();
        };
        let volume = Volume {
            name: self.string(fields.take("name")),
            is_external: self.boolean(fields.take("external")).unwrap_or_default(),
            driver: self.string(fields.take("driver")),
            driver_opts: self.pairs(fields.take("driver_opts")),
            labels: self.pairs(fields.take("labels")),
        };
        self.finish(fields, &[], &[]);
        self.external(at, volume.is_external);
        volume
    }

    pub(super) fn secret(&mut self, at: &At<'_>) -> FileObject {
        let Some(mut fields) = self.fields(at) else {
            return FileObject::default();
        };
        let driver = self.string(fields.take("driver"));
        let options = self.pairs(fields.take("driver_opts"));
        let object = self.file_object(at, &mut fields, SECRET_BYTES_MAX);
        self.finish(fields, &[], &[]);
        match driver {
            None => object,
            Some(_) if object.content != Content::External => {
                self.problem(
                    at,
                    "a secret with a `driver` has no `file` or `environment`",
                );
                object
            }
            Some(name) => FileObject {
                content: Content::Driver { name, options },
                ..object
            },
        }
    }

    pub(super) fn config(&mut self, at: &At<'_>) -> FileObject {
        let Some(mut fields) = self.fields(at) else {
            return FileObject::default();
        };
        let object = self.file_object(at, &mut fields, CONFIG_BYTES_MAX);
        self.finish(fields, &[], &[]);
        object
    }

    /// The keys of an object, which may say nothing at all.
    fn object<'n>(&mut self, at: &At<'n>) -> Option<Fields<'n>> {
        if at.node.value == Value::Null {
            return None;
        }
        self.fields(at)
    }

    /// Says what an external object cannot have.
    fn external(&mut self, at: &At<'_>, is_external: bool) {
        if !is_external {
            return;
        }
        let keys = at.node.as_map().into_iter().flatten();
        let others = keys.filter(|(key, _)| {
            !matches!(key.as_str(), "name" | "external") && !key.starts_with("x-")
        });
        for (key, entry) in others {
            let text = format!(
                "`{}` is external: `{key}` is not for this file to say",
                at.name()
            );
            self.loader.problems.push(Some(entry.place.clone()), text);
        }
    }

    fn ipam(&mut self, at: Option<At<'_>>) -> Option<Ipam> {
        let mut fields = self.fields(&at?)?;
        let mut ipam = Ipam {
            driver: self.string(fields.take("driver")),
            pools: Vec::new(),
            options: self.pairs(fields.take("options")),
        };
        for at in self.items(fields.take("config")) {
            let Some(mut pool) = self.fields(&at) else {
                continue;
            };
            ipam.pools.push(IpamPool {
                subnet: self.string(pool.take("subnet")),
                gateway: self.string(pool.take("gateway")),
                ip_range: self.string(pool.take("ip_range")),
                aux_addresses: self.pairs(pool.take("aux_addresses")),
            });
            self.finish(pool, &[], &[]);
        }
        self.finish(fields, &[], &[]);
        Some(ipam)
    }

    /// The part of secrets and configs that is the same.
    fn file_object(
        &mut self,
        at: &At<'_>,
        fields: &mut Fields<'_>,
        bytes_max: usize,
    ) -> FileObject {
        let is_external = self.boolean(fields.take("external")).unwrap_or_default();
        let mut object = FileObject {
            name: self.string(fields.take("name")),
            content: Content::External,
            labels: self.pairs(fields.take("labels")),
            template_driver: self.string(fields.take("template_driver")),
        };
        let file = fields.take("file");
        let environment = fields.take("environment");
        let content = if bytes_max == CONFIG_BYTES_MAX {
            fields.take("content")
        } else {
            None
        };
        let sources: Vec<&At<'_>> = [&file, &environment, &content]
            .into_iter()
            .flatten()
            .collect();
        if is_external {
            self.external(at, true);
            return object;
        }
        match sources.as_slice() {
            [] if at.node.get("driver").is_some() => return object,
            [] => {
                let text = format!(
                    "`{}` has no content: it needs `file`, `environment` or `external`",
                    at.name()
                );
                self.problem(at, &text);
            }
            [_] => {}
            [_, second, ..] => {
                let text = format!(
                    "`{}` has its content twice: `{}`, too",
                    at.name(),
                    second.name()
                );
                self.problem(second, &text);
            }
        }
        let bytes = match (file, environment, content) {
            (Some(file), ..) => self.file_bytes(&file, bytes_max),
            (None, Some(variable), _) => self.variable(&variable),
            (None, None, content) => self.string(content).map(String::into_bytes),
        };
        if let Some(bytes) = bytes {
            if bytes.is_empty() {
                let text = format!("`{}` is empty", at.name());
                self.problem(at, &text);
            } else if bytes.len() > bytes_max {
                let text = format!(
                    "`{}` has {} bytes, and may have {bytes_max}",
                    at.name(),
                    bytes.len()
                );
                self.problem(at, &text);
            }
            object.content = Content::Data(Redacted(bytes));
        }
        object
    }

    fn file_bytes(&mut self, at: &At<'_>, bytes_max: usize) -> Option<Vec<u8>> {
        let path = self.string(Some(at.clone()))?;
        self.loader
            .read(path.as_ref(), bytes_max, Some(&at.node.place))
    }

    /// The bytes of a variable.
    fn variable(&mut self, at: &At<'_>) -> Option<Vec<u8>> {
        let name = self.string(Some(at.clone()))?;
        let value = self.environment.get(&name);
        if value.is_none() {
            self.problem(at, &format!("variable `{name}` is not set"));
        }
        value.map(|value| value.clone().into_bytes())
    }
}
