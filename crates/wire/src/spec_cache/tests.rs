//! Equal parts of decoded objects are one allocation.

use std::collections::BTreeSet;

use skep_store::Object;

use super::*;
use crate::{
    arbitrary::Draw,
    snapshot::{Membership, decode_snapshot, encode_snapshot},
};

#[test]
fn tasks_of_a_service_share_its_spec_after_a_restart() {
    let mut draw = Draw::from_seed(5);
    let service = draw.service();
    let mut objects: Vec<Object> = (0..100)
        .map(|_| {
            let mut task = draw.task();
            // Equal values in allocations of their own.
            task.spec = Arc::new((*service.spec.task).clone());
            task.service_annotations = Arc::new((*service.spec.annotations).clone());
            task.endpoint = Some(Arc::new(Endpoint::default()));
            Object::Task(task.into())
        })
        .collect();
    objects.push(Object::Service(service.into()));

    let bytes = encode_snapshot(&Membership::default(), &objects);
    let decoded = decode_snapshot(&bytes, &mut SpecCache::new())
        .unwrap()
        .objects;

    assert_eq!(decoded, objects);
    let mut specs = BTreeSet::new();
    let mut annotations = BTreeSet::new();
    let mut endpoints = BTreeSet::new();
    for object in &decoded {
        match object {
            Object::Task(task) => {
                specs.insert(Arc::as_ptr(&task.spec));
                annotations.insert(Arc::as_ptr(&task.service_annotations));
                endpoints.extend(task.endpoint.as_ref().map(Arc::as_ptr));
            }
            Object::Service(service) => {
                specs.insert(Arc::as_ptr(&service.spec.task));
                annotations.insert(Arc::as_ptr(&service.spec.annotations));
            }
            Object::Node(_)
            | Object::Network(_)
            | Object::Cluster(_)
            | Object::Extension(_)
            | Object::Resource(_)
            | Object::Secret(_)
            | Object::Config(_) => panic!("none was written"),
        }
    }
    assert_eq!((specs.len(), annotations.len(), endpoints.len()), (1, 1, 1));
}

#[test]
fn different_specs_stay_apart() {
    let mut draw = Draw::from_seed(6);
    let mut cache = SpecCache::new();
    let (one, other) = (draw.task_spec(), draw.task_spec());
    let encode = |spec| proto::TaskSpec::from(spec).encode_to_vec();

    let decoded_one = cache.task_spec(&encode(&one)).unwrap();
    let decoded_other = cache.task_spec(&encode(&other)).unwrap();

    assert_eq!((&*decoded_one, &*decoded_other), (&one, &other));
}

#[test]
fn printing_a_cache_shows_no_contents() {
    let mut cache = SpecCache::new();
    let annotations = Annotations {
        name: "hunter2".to_owned(),
        ..Annotations::default()
    };
    let bytes = proto::Annotations::from(&annotations).encode_to_vec();
    cache.annotations(&bytes).unwrap();
    let text = format!("{cache:?}");
    assert!(
        text.contains("1 entries") && !text.contains("hunter2"),
        "{text}"
    );
}
