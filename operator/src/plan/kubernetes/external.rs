//! The address at which clients outside the cluster reach a group's master.
//!
//! It is the group's master Service that is opened to the outside: inside and outside lead to the same endpoint at the same moment.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{Blueprint, CLIENT_PORT};
use crate::api::{ExternalAccess, ExternalType};

impl Blueprint {
    /// What of the master Service is for the outside: further annotations, and fields of its spec.
    pub(super) fn external_parts(&self) -> (BTreeMap<String, String>, Value) {
        let Some(access) = &self.spec.external_access else { return (BTreeMap::new(), json!({"type": "ClusterIP"})) };
        let mut spec = json!({"type": format!("{:?}", access.type_)});
        if !access.source_ranges.is_empty() && access.type_ == ExternalType::LoadBalancer {
            spec["loadBalancerSourceRanges"] = json!(access.source_ranges);
        }
        (access.annotations.clone(), spec)
    }

    /// The address, `host:port`; none where nobody asks for one; or why there is none yet. Of several nodes' addresses the one of `before`
    /// stays as long as it is among them.
    pub fn external_address(
        &self,
        service: Option<&Service>,
        nodes: &[String],
        before: Option<&str>,
    ) -> Option<Result<String, String>> {
        let access = self.spec.external_access.as_ref()?;
        let name = self.master_service_name();
        let Some(service) = service else { return Some(Err(format!("Service {name} is not made yet"))) };
        Some(match access.type_ {
            ExternalType::LoadBalancer => load_balancer(access, service, &name),
            ExternalType::NodePort => node_port(access, service, &name, nodes, before),
        })
    }
}

fn load_balancer(access: &ExternalAccess, service: &Service, name: &str) -> Result<String, String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let given = status.and_then(|status| status.ingress.as_deref()).and_then(|ingress| ingress.first());
    let given = given.and_then(|ingress| ingress.hostname.clone().or_else(|| ingress.ip.clone()));
    let missing = || {
        format!(
            "Service {name} has no address of a load balancer yet: does this cluster have something that gives one?"
        )
    };
    let given = given.ok_or_else(missing)?;
    Ok(with_port(access.host.as_deref().unwrap_or(&given), CLIENT_PORT))
}

fn node_port(
    access: &ExternalAccess,
    service: &Service,
    name: &str,
    nodes: &[String],
    before: Option<&str>,
) -> Result<String, String> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let port = ports.iter().find(|port| port.port == i32::from(CLIENT_PORT)).and_then(|port| port.node_port);
    let port = port.and_then(|port| u16::try_from(port).ok()).ok_or(format!("Service {name} has no node port yet"))?;
    if let Some(host) = &access.host {
        return Ok(with_port(host, port));
    }
    let all: Vec<_> = nodes.iter().map(|node| with_port(node, port)).collect();
    let kept = before.and_then(|before| all.iter().find(|address| *address == before));
    let address = kept.or(all.first()).cloned();
    address.ok_or_else(|| {
        "the address of no node is known that a replica runs on: name one in spec.externalAccess.host".to_owned()
    })
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::super::tests::blueprint;
    use super::*;

    fn address(
        access: &Value,
        service: &Value,
        nodes: &[&str],
        before: Option<&str>,
    ) -> Option<Result<String, String>> {
        let service: Service = serde_json::from_value(service.clone()).unwrap();
        let nodes: Vec<_> = nodes.iter().map(|node| (*node).to_owned()).collect();
        blueprint(json!({"externalAccess": access})).external_address(Some(&service), &nodes, before)
    }

    #[test]
    fn a_load_balancers_address_is_awaited_and_a_name_of_ones_own_wins() {
        let balanced = |ingress: Value| json!({"status": {"loadBalancer": {"ingress": [ingress]}}});
        let access = json!({"type": "LoadBalancer"});
        let of = |access: &Value, service: &Value| address(access, service, &[], None).unwrap();
        assert!(of(&access, &json!({})).unwrap_err().contains("Service broker-a-master has no address"));
        assert_eq!(of(&access, &balanced(json!({"ip": "198.51.100.7"}))), Ok("198.51.100.7:10911".to_owned()));
        let named = balanced(json!({"hostname": "lb.example.org", "ip": "198.51.100.7"}));
        assert_eq!(of(&access, &named), Ok("lb.example.org:10911".to_owned()));
        let own = json!({"type": "LoadBalancer", "host": "mq.example.org"});
        assert_eq!(of(&own, &named), Ok("mq.example.org:10911".to_owned()));
        assert!(of(&own, &json!({})).is_err(), "nobody answers there yet");
    }

    #[test]
    fn a_nodes_address_stays_while_a_replica_runs_there() {
        let access = json!({"type": "NodePort"});
        let ports = json!([{"port": 10909, "nodePort": 30001}, {"port": 10911, "nodePort": 30002}]);
        let service = json!({"spec": {"ports": ports}});
        let of = |nodes: &[&str], before| address(&access, &service, nodes, before).unwrap();
        assert_eq!(of(&["10.0.0.1", "10.0.0.2"], None), Ok("10.0.0.1:30002".to_owned()));
        assert_eq!(of(&["10.0.0.1", "10.0.0.2"], Some("10.0.0.2:30002")), Ok("10.0.0.2:30002".to_owned()));
        assert_eq!(of(&["10.0.0.1"], Some("10.0.0.2:30002")), Ok("10.0.0.1:30002".to_owned()));
        assert_eq!(of(&["fd00::1"], None), Ok("[fd00::1]:30002".to_owned()));
        assert!(of(&[], None).unwrap_err().contains("spec.externalAccess.host"));
        let named = address(&json!({"type": "NodePort", "host": "n.example.org"}), &service, &[], None).unwrap();
        assert_eq!(named, Ok("n.example.org:30002".to_owned()));
        assert!(address(&access, &json!({}), &["10.0.0.1"], None).unwrap().unwrap_err().contains("no node port yet"));
    }

    #[test]
    fn the_master_service_is_opened_to_the_outside_only_where_that_is_asked_for() {
        let service = |spec: Value| blueprint(spec).master_service().body;
        assert_eq!(service(json!({}))["spec"]["type"], "ClusterIP");
        let access = json!({
            "type": "LoadBalancer", "annotations": {"lb.example.org/internal": "true"}, "sourceRanges": ["192.0.2.0/24"],
        });
        let open = service(json!({"externalAccess": access}));
        assert_eq!(open["spec"]["type"], "LoadBalancer");
        assert_eq!(open["spec"]["loadBalancerSourceRanges"], json!(["192.0.2.0/24"]));
        assert_eq!(open["metadata"]["annotations"]["lb.example.org/internal"], "true");
        assert!(open["spec"]["selector"].is_null());
    }
}
