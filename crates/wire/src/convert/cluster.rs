//! The cluster object.

use skep_model as model;

use crate::{
    convert::{
        field::{At, id, known, list, or_default, port, to_list},
        time::{timestamp_or_zero, to_timestamp_unless_zero},
    },
    error::{Error, Problem},
    proto::{self, encryption_key::Algorithm},
};

impl From<&model::Cluster> for proto::Cluster {
    fn from(value: &model::Cluster) -> Self {
        let blacklisted = value.blacklisted_certificates.iter().map(|(name, expiry)| {
            let expiry = to_timestamp_unless_zero(*expiry);
            (name.clone(), proto::BlacklistedCertificate { expiry })
        });
        Self {
            id: value.id.to_string(),
            meta: Some((&value.meta).into()),
            spec: Some((&value.spec).into()),
            root_ca: Some((&value.root_ca).into()),
            network_bootstrap_keys: to_list(&value.network_bootstrap_keys),
            encryption_key_lamport_clock: value.encryption_key_lamport_clock,
            blacklisted_certificates: blacklisted.collect(),
            unlock_keys: to_list(&value.unlock_keys),
            fips: value.is_fips,
            default_address_pool: value
                .default_address_pool
                .iter()
                .map(ToString::to_string)
                .collect(),
            subnet_size: value.subnet_size,
            vxlanudp_port: value.vxlan_udp_port.into(),
        }
    }
}

impl TryFrom<proto::Cluster> for model::Cluster {
    type Error = Error;

    fn try_from(value: proto::Cluster) -> Result<Self, Error> {
        let blacklisted = value.blacklisted_certificates.into_iter();
        let pool = value
            .default_address_pool
            .into_iter()
            .map(|text| text.parse().map_err(|_| Problem::invalid_network(&text)))
            .collect::<Result<_, _>>();
        Ok(Self {
            id: id(&value.id).at("id")?,
            meta: value.meta.unwrap_or_default().into(),
            spec: or_default(value.spec).at("spec")?,
            root_ca: value.root_ca.unwrap_or_default().into(),
            network_bootstrap_keys: list(value.network_bootstrap_keys)
                .at("network_bootstrap_keys")?,
            encryption_key_lamport_clock: value.encryption_key_lamport_clock,
            blacklisted_certificates: blacklisted
                .map(|(name, certificate)| (name, timestamp_or_zero(certificate.expiry)))
                .collect(),
            unlock_keys: list(value.unlock_keys).at("unlock_keys")?,
            is_fips: value.fips,
            default_address_pool: pool.at("defaultAddressPool")?,
            subnet_size: value.subnet_size,
            vxlan_udp_port: port(value.vxlanudp_port).at("VXLANUDPPort")?,
        })
    }
}

impl From<&model::RootCa> for proto::RootCa {
    fn from(value: &model::RootCa) -> Self {
        Self {
            ca_key: value.ca_key.0.clone(),
            ca_cert: value.ca_cert.clone(),
            ca_cert_hash: value.ca_cert_hash.clone(),
            join_tokens: Some(proto::JoinTokens {
                worker: value.join_tokens.worker.0.clone(),
                manager: value.join_tokens.manager.0.clone(),
            }),
            root_rotation: value.root_rotation.as_ref().map(Into::into),
            last_forced_rotation: value.last_forced_rotation,
        }
    }
}

impl From<proto::RootCa> for model::RootCa {
    fn from(value: proto::RootCa) -> Self {
        let tokens = value.join_tokens.unwrap_or_default();
        Self {
            ca_key: model::Redacted(value.ca_key),
            ca_cert: value.ca_cert,
            ca_cert_hash: value.ca_cert_hash,
            join_tokens: model::JoinTokens {
                worker: model::Redacted(tokens.worker),
                manager: model::Redacted(tokens.manager),
            },
            root_rotation: value.root_rotation.map(Into::into),
            last_forced_rotation: value.last_forced_rotation,
        }
    }
}

impl From<&model::object::RootRotation> for proto::RootRotation {
    fn from(value: &model::object::RootRotation) -> Self {
        Self {
            ca_cert: value.ca_cert.clone(),
            ca_key: value.ca_key.0.clone(),
            cross_signed_ca_cert: value.cross_signed_ca_cert.clone(),
        }
    }
}

impl From<proto::RootRotation> for model::object::RootRotation {
    fn from(value: proto::RootRotation) -> Self {
        Self {
            ca_cert: value.ca_cert,
            ca_key: model::Redacted(value.ca_key),
            cross_signed_ca_cert: value.cross_signed_ca_cert,
        }
    }
}

impl From<&model::EncryptionKey> for proto::EncryptionKey {
    fn from(value: &model::EncryptionKey) -> Self {
        Self {
            subsystem: value.subsystem.clone(),
            algorithm: Algorithm::Aes128Gcm.into(),
            key: value.key.0.clone(),
            lamport_time: value.lamport_time,
        }
    }
}

impl TryFrom<proto::EncryptionKey> for model::EncryptionKey {
    type Error = Error;

    fn try_from(value: proto::EncryptionKey) -> Result<Self, Error> {
        let _: Algorithm = known::<Algorithm, _>(value.algorithm).at("algorithm")?;
        Ok(Self {
            subsystem: value.subsystem,
            key: model::Redacted(value.key),
            lamport_time: value.lamport_time,
        })
    }
}
