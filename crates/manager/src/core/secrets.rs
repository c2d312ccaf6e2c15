//! Commands on secrets and configs. Both are handled alike, with SwarmKit's texts.

use skep_model::{
    Annotations, Config, ConfigId, ConfigSpec, Meta, Rng, Secret, SecretId, SecretSpec, Service,
    ServiceSpec, Version, validate,
};
use skep_store::{Store, Transaction};

use super::{refuse_problems, refuse_store_error};
use crate::command::{Answer, Code, CommandError};

/// Secrets, and configs, of one cluster. At their largest they take 5 and 10 GB of every manager, so
/// what a cluster can hold is its managers' memory; this bounds what is walked through.
const COUNT_MAX: usize = 10_000;

/// Adds a secret.
pub(super) fn create_secret(
    tx: &mut Transaction,
    rng: &mut Rng,
    spec: SecretSpec,
) -> Result<Answer, CommandError> {
    refuse_problems(&validate::secret_spec(&spec))?;
    let table = tx.view().secrets();
    let is_taken = table.by_name(&spec.annotations.name).is_some();
    check_room("secret", &spec.annotations, is_taken, table.count())?;
    let id = SecretId::random(rng);
    let secret = Secret {
        id,
        meta: Meta::default(),
        spec,
        is_internal: false,
    };
    tx.create_secret(secret)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Secret(id))
}

/// Replaces a secret's labels; nothing else of it ever changes.
pub(super) fn update_secret(
    tx: &mut Transaction,
    id: SecretId,
    version: Version,
    spec: SecretSpec,
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().secrets().get(id) else {
        return Err(not_found("secret", id.as_str()));
    };
    let mut secret = Secret::clone(stored);
    let is_same = spec.data.0.is_empty() || spec.data == secret.spec.data;
    check_is_relabelled(&secret.spec.annotations, &spec.annotations, is_same)?;
    secret.meta.version = version;
    secret.spec.annotations.labels = spec.annotations.labels;
    tx.update_secret(secret)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Done)
}

/// Removes a secret no service uses.
pub(super) fn remove_secret(tx: &mut Transaction, id: SecretId) -> Result<Answer, CommandError> {
    let Some(secret) = tx.view().secrets().get(id) else {
        return Err(not_found("secret", id.as_str()));
    };
    let uses = |service: &Service| {
        let mut secrets = service.spec.task.container.secrets.iter();
        secrets.any(|secret| secret.secret_id == id.as_str())
    };
    refuse_use(tx.view(), "secret", secret.name(), uses)?;
    tx.remove_secret(id);
    Ok(Answer::Done)
}

/// Adds a config.
pub(super) fn create_config(
    tx: &mut Transaction,
    rng: &mut Rng,
    spec: ConfigSpec,
) -> Result<Answer, CommandError> {
    refuse_problems(&validate::config_spec(&spec))?;
    let table = tx.view().configs();
    let is_taken = table.by_name(&spec.annotations.name).is_some();
    check_room("config", &spec.annotations, is_taken, table.count())?;
    let id = ConfigId::random(rng);
    let config = Config {
        id,
        meta: Meta::default(),
        spec,
    };
    tx.create_config(config)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Config(id))
}

/// Replaces a config's labels; nothing else of it ever changes.
pub(super) fn update_config(
    tx: &mut Transaction,
    id: ConfigId,
    version: Version,
    spec: ConfigSpec,
) -> Result<Answer, CommandError> {
    let Some(stored) = tx.view().configs().get(id) else {
        return Err(not_found("config", id.as_str()));
    };
    let mut config = Config::clone(stored);
    let is_same = spec.data.0.is_empty() || spec.data == config.spec.data;
    check_is_relabelled(&config.spec.annotations, &spec.annotations, is_same)?;
    config.meta.version = version;
    config.spec.annotations.labels = spec.annotations.labels;
    tx.update_config(config)
        .map_err(|error| refuse_store_error(&error))?;
    Ok(Answer::Done)
}

/// Removes a config no service uses.
pub(super) fn remove_config(tx: &mut Transaction, id: ConfigId) -> Result<Answer, CommandError> {
    let Some(config) = tx.view().configs().get(id) else {
        return Err(not_found("config", id.as_str()));
    };
    let uses = |service: &Service| {
        let mut configs = service.spec.task.container.configs.iter();
        configs.any(|config| config.config_id == id.as_str())
    };
    refuse_use(tx.view(), "config", config.name(), uses)?;
    tx.remove_config(id);
    Ok(Answer::Done)
}

/// What a service refers to exists, and is called what the service calls it.
pub(super) fn check_references(tx: &Transaction, spec: &ServiceSpec) -> Result<(), CommandError> {
    let container = &spec.task.container;
    let secrets = container.secrets.iter().filter(|reference| {
        let id = reference.secret_id.parse().ok();
        let secret = id.and_then(|id| tx.view().secrets().get(id));
        secret.is_none_or(|secret| secret.name() != reference.secret_name)
    });
    refuse_missing(
        "secret",
        secrets.map(|reference| reference.secret_name.as_str()),
    )?;
    let configs = container.configs.iter().filter(|reference| {
        let id = reference.config_id.parse().ok();
        let config = id.and_then(|id| tx.view().configs().get(id));
        config.is_none_or(|config| config.name() != reference.config_name)
    });
    refuse_missing(
        "config",
        configs.map(|reference| reference.config_name.as_str()),
    )
}

fn refuse_missing<'a>(
    noun: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), CommandError> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} not found: {}",
        plural(noun, names.len()),
        names.join(", ")
    );
    Err(CommandError::new(Code::InvalidArgument, message))
}

fn check_room(
    noun: &str,
    annotations: &Annotations,
    is_taken: bool,
    count: usize,
) -> Result<(), CommandError> {
    if is_taken {
        let message = format!("{noun} {} already exists", annotations.name);
        return Err(CommandError::new(Code::AlreadyExists, message));
    }
    if count >= COUNT_MAX {
        let message = format!("a cluster has at most {COUNT_MAX} {noun}s");
        return Err(CommandError::new(Code::ResourceExhausted, message));
    }
    Ok(())
}

fn check_is_relabelled(
    old: &Annotations,
    new: &Annotations,
    is_same: bool,
) -> Result<(), CommandError> {
    if old.name == new.name && is_same {
        return Ok(());
    }
    Err(CommandError::new(
        Code::InvalidArgument,
        "only updates to Labels are allowed",
    ))
}

fn refuse_use(
    store: &Store,
    noun: &str,
    name: &str,
    uses: impl Fn(&Service) -> bool,
) -> Result<(), CommandError> {
    let users = store.services().filter(|service| uses(service));
    let users: Vec<&str> = users.map(|service| service.name()).collect();
    if users.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{noun} '{name}' is in use by the following {}: {}",
        plural("service", users.len()),
        users.join(", ")
    );
    Err(CommandError::new(Code::InvalidArgument, message))
}

fn not_found(noun: &str, id: &str) -> CommandError {
    CommandError::new(Code::NotFound, format!("{noun} {id} not found"))
}

fn plural(noun: &str, count: usize) -> String {
    if count == 1 {
        noun.to_owned()
    } else {
        format!("{noun}s")
    }
}
