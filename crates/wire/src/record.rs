//! Records of the worker's database: a task as assigned, and its latest status.

use prost::Message;
use skep_model::{Task, TaskStatus};

use crate::{error::Error, object_codec, proto, spec_cache::SpecCache};

/// The bytes of `task`.
pub fn encode_task(task: &Task) -> Vec<u8> {
    proto::Task::from(task).encode_to_vec()
}

/// The task `bytes` encode. Tasks decoded through one `cache` share equal specs.
pub fn decode_task(bytes: &[u8], cache: &mut SpecCache) -> Result<Task, Error> {
    object_codec::decode_task(bytes, cache)
}

/// The bytes of `status`.
pub fn encode_task_status(status: &TaskStatus) -> Vec<u8> {
    proto::TaskStatus::from(status).encode_to_vec()
}

/// The status `bytes` encode.
pub fn decode_task_status(bytes: &[u8]) -> Result<TaskStatus, Error> {
    proto::TaskStatus::decode(bytes)?.try_into()
}
