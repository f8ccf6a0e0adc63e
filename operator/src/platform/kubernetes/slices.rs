//! The slices behind Services without selector: a group's master, and the elector.
//!
//! Written by compare-and-set on their version, and a master's only over one of the same or an elder epoch: a write that was long on its way
//! can't lead clients back to an old master.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::api::{CallError, call};
use super::lease::Leadership;
use super::reconcile::MANAGER;
use crate::plan::kubernetes::{MasterAt, epoch_of, master_slice, slice_name};

/// Writes of others that are put up with.
const TRIES: usize = 5;

/// The group whose master's slice it is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) group: String,
    pub(super) uid: String,
}

/// Lets the group's master Service lead to `master`.
pub(super) async fn lead_to_master(
    client: &Client,
    leadership: &Leadership,
    place: &Place,
    master: &MasterAt,
) -> Result<(), CallError> {
    let Place { namespace, group, uid } = place;
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let ip = master.ip.to_string();
    let stands = |old: &EndpointSlice| {
        let (epoch, address) = epoch_of(old);
        epoch > master.epoch || (epoch == master.epoch && address == Some(&ip))
    };
    put(&api, leadership, &slice_name(group), stands, |version| master_slice(namespace, group, uid, master, version))
        .await
}

/// Lets the group's master Service lead nowhere: there is no pod any more, and another one may be given the address.
pub(super) async fn lead_nowhere(client: &Client, leadership: &Leadership, place: &Place) -> Result<(), CallError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &place.namespace);
    let name = slice_name(&place.group);
    let mut tries = TRIES;
    loop {
        let Some(mut slice) = call(api.get_opt(&name)).await? else { return Ok(()) };
        if slice.endpoints.is_empty() {
            return Ok(());
        }
        slice.endpoints.clear();
        leadership.check()?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match call(api.replace(&name, &params, &slice)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() && tries > 1 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

/// Lets the elector's Service lead to this operator.
pub(super) async fn lead_to_elector(
    client: &Client,
    leadership: &Leadership,
    (namespace, service): (&str, &str),
    (ip, port): (IpAddr, u16),
) -> Result<(), CallError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let name = format!("{service}-gantry");
    let address = ip.to_string();
    let stands = |old: &EndpointSlice| {
        let same_port = |ports: &Vec<EndpointPort>| ports.iter().any(|it| it.port == Some(i32::from(port)));
        epoch_of(old).1 == Some(&address) && old.ports.as_ref().is_some_and(same_port)
    };
    let body = |version: Option<&str>| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": namespace, "resourceVersion": version,
                "labels": {
                    "kubernetes.io/service-name": service,
                    "endpointslice.kubernetes.io/managed-by": "gantry-operator",
                },
            },
            "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
            "ports": [{"name": "elector", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false}}],
        })
    };
    put(&api, leadership, &name, stands, body).await
}

async fn put(
    api: &Api<EndpointSlice>,
    leadership: &Leadership,
    name: &str,
    stands: impl Fn(&EndpointSlice) -> bool,
    body: impl Fn(Option<&str>) -> Value,
) -> Result<(), CallError> {
    let mut tries = TRIES;
    loop {
        let old = call(api.get_opt(name)).await?;
        if old.as_ref().is_some_and(&stands) {
            return Ok(());
        }
        let version = old.as_ref().and_then(|old| old.metadata.resource_version.as_deref());
        let slice: EndpointSlice = serde_json::from_value(body(version)).map_err(kube::Error::SerdeError)?;
        leadership.check()?;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = match version {
            Some(_) => call(api.replace(name, &params, &slice)).await,
            None => call(api.create(&params, &slice)).await,
        };
        match written {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() && tries > 1 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mock::Mock;
    use super::*;
    use gantry_replication::Epoch;

    const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/broker-a-master";

    fn master(epoch: u64, ip: &str) -> MasterAt {
        MasterAt { epoch: Epoch(epoch), replica: "broker-a-0".to_owned(), ip: ip.parse().unwrap() }
    }

    #[tokio::test]
    async fn a_masters_slice_follows_epochs_upwards_only() {
        let mock = Mock::start();
        let (client, leadership) = (mock.client(), Leadership::for_tests());
        let place = Place { namespace: "shop".to_owned(), group: "broker-a".to_owned(), uid: "u".to_owned() };
        for (epoch, ip, leads_to) in [
            (1, "10.0.0.1", "10.0.0.1"),
            (3, "10.0.0.3", "10.0.0.3"),
            (2, "10.0.0.2", "10.0.0.3"),
            (3, "10.0.0.4", "10.0.0.4"),
        ] {
            lead_to_master(&client, &leadership, &place, &master(epoch, ip)).await.unwrap();
            assert_eq!(mock.get(PATH).unwrap()["endpoints"][0]["addresses"], json!([leads_to]), "epoch {epoch}");
        }
        lead_nowhere(&client, &leadership, &place).await.unwrap();
        assert_eq!(mock.get(PATH).unwrap()["endpoints"], json!([]));
        lead_to_master(&client, &leadership, &place, &master(3, "10.0.0.5")).await.unwrap();
        assert_eq!(
            mock.get(PATH).unwrap()["endpoints"][0]["addresses"],
            json!(["10.0.0.5"]),
            "the same epoch wakes up"
        );
        let lost = Leadership::default();
        lead_to_master(&client, &lost, &place, &master(9, "10.0.0.9")).await.unwrap_err();
    }
}
