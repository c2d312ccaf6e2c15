//! Tasks and their specs.

use std::sync::Arc;

use skep_model as model;
use skep_model::{NodeId, ServiceId, TaskId, TaskState};

use crate::arbitrary::Draw;

impl Draw {
    /// A task.
    pub fn task(&mut self) -> model::Task {
        model::Task {
            id: TaskId::random(&mut self.0),
            meta: self.meta(),
            spec: Arc::new(self.task_spec()),
            spec_version: self.option(Self::version),
            service_id: self.option(|draw| ServiceId::random(&mut draw.0)),
            slot: self.number(),
            node_id: self.option(|draw| NodeId::random(&mut draw.0)),
            annotations: Arc::new(self.annotations()),
            service_annotations: Arc::new(self.annotations()),
            status: self.task_status(),
            desired_state: self.one_of(&TaskState::ALL),
            endpoint: self.option(|draw| Arc::new(draw.endpoint())),
            log_driver: self.option(Self::driver),
            networks: self.list(Self::attachment),
            assigned_generic_resources: self.list(Self::generic_resource),
            job_iteration: self.option(Self::version),
        }
    }

    /// What is known of a task.
    pub fn task_status(&mut self) -> model::TaskStatus {
        model::TaskStatus {
            timestamp: self.time(),
            state: self.one_of(&TaskState::ALL),
            message: self.text(),
            err: self.text(),
            container: self.option(|draw| model::ContainerStatus {
                container_id: draw.text(),
                pid: draw.small().cast_signed(),
                exit_code: draw.small().cast_signed(),
            }),
            ports: self.list(Self::port),
            applied_by: self.option(|draw| NodeId::random(&mut draw.0)),
            applied_at: self.option(Self::time),
        }
    }

    /// The template of a task.
    pub fn task_spec(&mut self) -> model::TaskSpec {
        use model::RestartCondition;
        model::TaskSpec {
            container: self.container(),
            resources: model::ResourceRequirements {
                limits: self.resources(),
                reservations: self.resources(),
                swap_bytes: self.option(Self::signed),
                memory_swappiness: self.option(Self::signed),
                pids_limit: self.signed(),
            },
            restart: model::RestartPolicy {
                condition: self.one_of(&[
                    RestartCondition::None,
                    RestartCondition::OnFailure,
                    RestartCondition::Any,
                ]),
                delay: self.duration(),
                max_attempts: self.number(),
                window: self.duration(),
            },
            placement: model::Placement {
                constraints: self.texts(),
                spread_over: self.texts(),
                platforms: self.list(Self::platform),
                max_replicas: self.number(),
            },
            log_driver: self.option(Self::driver),
            networks: self.list(Self::network_attachment),
            force_update: self.number(),
        }
    }
}
