//! Where probes are answered and metrics are shown, by RocketMQ's keys.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};

use super::Keys;

/// RocketMQ's.
const DEFAULT_PORT: u16 = 5_557;

impl Keys {
    /// As in RocketMQ nobody listens unless that is asked for; here a port is enough to ask. By default at `brokerIP1` (`ip`), not
    /// everywhere: whoever can connect can read.
    pub(super) fn metrics(&mut self, ip: IpAddr) -> Result<Option<SocketAddr>> {
        let port: Option<u16> = self.optional("metricsPromExporterPort")?;
        let address = SocketAddr::new(self.or("metricsPromExporterHost", ip)?, port.unwrap_or(DEFAULT_PORT));
        let kind: Option<String> = self.optional("metricsExporterType")?;
        match kind.as_deref() {
            None => Ok(port.map(|_| address)),
            Some("PROM") => Ok(Some(address)),
            Some("DISABLE") => Ok(None),
            Some(other) => {
                bail!("metricsExporterType={other}: expected PROM (Prometheus fetches the metrics) or DISABLE")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::BrokerConfig;

    fn metrics(text: &str) -> Result<Option<String>, String> {
        let entries = java_properties::read(text.as_bytes()).unwrap().into_iter().collect();
        let parsed = BrokerConfig::parse(entries).map_err(|error| format!("{error:#}"))?;
        assert!(parsed.unknown_keys.is_empty(), "{:?}", parsed.unknown_keys);
        Ok(parsed.metrics.map(|address| address.to_string()))
    }

    #[test]
    fn metrics_are_shown_where_that_is_asked_for() {
        let at = |address: &str| Ok(Some(address.to_owned()));
        assert_eq!(metrics(""), Ok(None));
        assert_eq!(metrics("brokerIP1=10.0.0.7\nmetricsExporterType=PROM"), at("10.0.0.7:5557"));
        assert_eq!(metrics("metricsPromExporterPort=0"), at("127.0.0.1:0"));
        assert_eq!(metrics("metricsPromExporterPort=6000\nmetricsPromExporterHost=0.0.0.0"), at("0.0.0.0:6000"));
        assert_eq!(metrics("metricsPromExporterPort=6000\nmetricsExporterType=DISABLE"), Ok(None));
        let said = metrics("metricsExporterType=OTLP_GRPC").unwrap_err();
        assert!(said.contains("metricsExporterType=OTLP_GRPC: expected PROM"), "{said}");
    }
}
