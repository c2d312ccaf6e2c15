//! `deploy` of a service, and the keys of the service that say the same.

use super::{
    Decoder,
    field::{At, Fields},
    unsupported,
};
use crate::project::{
    Deploy, DeployMode, GenericResource, Placement, Resources, RestartPolicy, UpdateConfig,
};

// === impl Decoder ===

impl Decoder<'_, '_> {
    /// `deploy`, with `scale`, `cpus`, `mem_limit`, `mem_reservation` and `pids_limit` of the service in it.
    pub(super) fn deploy(&mut self, service: &mut Fields<'_>) -> Deploy {
        let at = service.take("deploy");
        let mut deploy = at.and_then(|at| self.deploy_key(&at)).unwrap_or_default();
        let scale = service.take("scale");
        let replicas = self.unsigned(scale.clone());
        deploy.replicas = self.same(scale, "deploy.replicas", deploy.replicas, replicas);
        let mut limits = deploy.limits.take().unwrap_or_default();
        let mut reservations = deploy.reservations.take().unwrap_or_default();

        let cpus = service.take("cpus");
        let nano_cpus = self.nano_cpus(cpus.clone());
        limits.nano_cpus = self.same(
            cpus,
            "deploy.resources.limits.cpus",
            limits.nano_cpus,
            nano_cpus,
        );
        let memory = service.take("mem_limit");
        let bytes = self.bytes(memory.clone());
        limits.memory_bytes = self.same(
            memory,
            "deploy.resources.limits.memory",
            limits.memory_bytes,
            bytes,
        );
        let memory = service.take("mem_reservation");
        let bytes = self.bytes(memory.clone());
        let reserved = reservations.memory_bytes;
        reservations.memory_bytes = self.same(
            memory,
            "deploy.resources.reservations.memory",
            reserved,
            bytes,
        );
        let pids = service.take("pids_limit");
        let count = self.integer(pids.clone(), -1, i64::MAX);
        limits.pids = self.same(pids, "deploy.resources.limits.pids", limits.pids, count);

        deploy.limits = (limits != Resources::default()).then_some(limits);
        deploy.reservations = (reservations != Resources::default()).then_some(reservations);
        deploy
    }

    /// The value of a key of the service that stands in `deploy`, too.
    fn same<T: PartialEq>(
        &mut self,
        at: Option<At<'_>>,
        other: &str,
        deploy: Option<T>,
        service: Option<T>,
    ) -> Option<T> {
        if let (Some(at), Some(deploy), Some(service)) = (&at, &deploy, &service)
            && deploy != service
        {
            let text = format!("`{}` and `{other}` say different things", at.name());
            self.problem(at, &text);
        }
        deploy.or(service)
    }

    fn deploy_key(&mut self, at: &At<'_>) -> Option<Deploy> {
        let mut fields = self.fields(at)?;
        let replicas = fields.take("replicas");
        let mut deploy = Deploy {
            mode: self.word(fields.take("mode")).unwrap_or_default(),
            replicas: self.unsigned(replicas.clone()),
            endpoint_mode: self.word(fields.take("endpoint_mode")),
            labels: self.pairs(fields.take("labels")),
            update_config: self.update_config(fields.take("update_config")),
            rollback_config: self.update_config(fields.take("rollback_config")),
            restart_policy: self.restart_policy(fields.take("restart_policy")),
            placement: self.placement(fields.take("placement")).unwrap_or_default(),
            ..Deploy::default()
        };
        if let Some(at) = fields.take("resources")
            && let Some(mut resources) = self.fields(&at)
        {
            deploy.limits = self.limits(resources.take("limits"));
            deploy.reservations = self.reservations(resources.take("reservations"));
            self.finish(resources, &[], &[]);
        }
        self.finish(fields, &[], &[]);
        let is_global = matches!(deploy.mode, DeployMode::Global | DeployMode::GlobalJob);
        if let Some(replicas) = replicas.filter(|_| is_global) {
            self.problem(
                &replicas,
                "`replicas` is for the modes `replicated` and `replicated-job`",
            );
        }
        Some(deploy)
    }

    fn limits(&mut self, at: Option<At<'_>>) -> Option<Resources> {
        let mut fields = self.fields(&at?)?;
        let limits = Resources {
            nano_cpus: self.nano_cpus(fields.take("cpus")),
            memory_bytes: self.bytes(fields.take("memory")),
            pids: self.integer(fields.take("pids"), -1, i64::MAX),
            generic: Vec::new(),
        };
        self.finish(fields, &[], &[]);
        Some(limits)
    }

    fn reservations(&mut self, at: Option<At<'_>>) -> Option<Resources> {
        let mut fields = self.fields(&at?)?;
        let generic = self.items(fields.take("generic_resources"));
        let reservations = Resources {
            nano_cpus: self.nano_cpus(fields.take("cpus")),
            memory_bytes: self.bytes(fields.take("memory")),
            pids: None,
            generic: generic
                .iter()
                .filter_map(|at| self.generic_resource(at))
                .collect(),
        };
        self.finish(fields, &[], unsupported::RESERVATIONS);
        Some(reservations)
    }

    fn generic_resource(&mut self, at: &At<'_>) -> Option<GenericResource> {
        let mut fields = self.fields(at)?;
        let spec = fields.take("discrete_resource_spec");
        self.finish(fields, &[], &[]);
        let Some(spec) = spec else {
            self.problem(at, "a generic resource needs `discrete_resource_spec`");
            return None;
        };
        let mut fields = self.fields(&spec)?;
        let (kind, value) = (fields.take("kind"), fields.take("value"));
        if kind.is_none() || value.is_none() {
            self.problem(&spec, "`discrete_resource_spec` needs `kind` and `value`");
        }
        let resource = GenericResource {
            kind: self.string(kind).unwrap_or_default(),
            value: self.integer(value, 0, i64::MAX).unwrap_or_default(),
        };
        self.finish(fields, &[], &[]);
        Some(resource)
    }

    fn update_config(&mut self, at: Option<At<'_>>) -> Option<UpdateConfig> {
        let mut fields = self.fields(&at?)?;
        let config = UpdateConfig {
            parallelism: self.unsigned(fields.take("parallelism")),
            delay: self.duration(fields.take("delay")),
            failure_action: self.word(fields.take("failure_action")),
            monitor: self.duration(fields.take("monitor")),
            max_failure_ratio: self.float(fields.take("max_failure_ratio"), 0.0, 1.0),
            order: self.word(fields.take("order")),
        };
        self.finish(fields, &[], &[]);
        Some(config)
    }

    fn restart_policy(&mut self, at: Option<At<'_>>) -> Option<RestartPolicy> {
        let mut fields = self.fields(&at?)?;
        let policy = RestartPolicy {
            condition: self.word(fields.take("condition")),
            delay: self.duration(fields.take("delay")),
            max_attempts: self.unsigned(fields.take("max_attempts")),
            window: self.duration(fields.take("window")),
        };
        self.finish(fields, &[], &[]);
        Some(policy)
    }

    fn placement(&mut self, at: Option<At<'_>>) -> Option<Placement> {
        let mut fields = self.fields(&at?)?;
        let mut placement = Placement {
            constraints: self.strings(fields.take("constraints")),
            spread: Vec::new(),
            max_replicas_per_node: self.unsigned(fields.take("max_replicas_per_node")),
        };
        for at in self.items(fields.take("preferences")) {
            let Some(mut preference) = self.fields(&at) else {
                continue;
            };
            placement
                .spread
                .extend(self.string(preference.take("spread")));
            self.finish(preference, &[], &[]);
        }
        self.finish(fields, &[], &[]);
        Some(placement)
    }
}
