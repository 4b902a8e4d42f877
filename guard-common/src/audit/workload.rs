//! The short name of a workload: what tables, messages and policies call it.

use super::v1::Workload;

impl Workload {
    /// The shortest useful name: the AI agent behind it, its pod, container or unit, the name in its certificate, its
    /// executable, its address.
    pub fn label(&self) -> String {
        let executable = self.executable.rsplit('/').next().unwrap_or_default();
        let program = if executable.is_empty() { self.comm.as_str() } else { executable };
        if !self.ai_agent.is_empty() {
            return format!("{} via {}", if program.is_empty() { "?" } else { program }, self.ai_agent);
        }
        let pod = self.pod.as_ref().map(|pod| if pod.name.is_empty() { &pod.uid } else { &pod.name });
        let container = self.container.as_ref();
        let container = container
            .map(|container| if container.name.is_empty() { &container.id } else { &container.name });
        let certificate = self.certificate.as_ref().filter(|_| program.is_empty());
        let spiffe = certificate.map(|certificate| &certificate.spiffe_id);
        let holder = certificate.map(|certificate| &certificate.common_name);
        let candidates = [pod, container, Some(&self.unit), spiffe, holder, Some(&self.remote_address)];
        if let Some(name) = candidates.into_iter().flatten().find(|name| !name.is_empty()) {
            return name.clone();
        }
        if program.is_empty() { "unknown".to_owned() } else { program.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::v1::ClientCertificate, *};

    #[test]
    fn remote_clients_are_called_by_their_certificate() {
        let certificate = ClientCertificate { common_name: "orders".to_owned(), ..Default::default() };
        let remote_address = "192.0.2.7".to_owned();
        let mut workload = Workload { remote_address, certificate: Some(certificate), ..Workload::default() };
        assert_eq!(workload.label(), "orders");
        if let Some(certificate) = &mut workload.certificate {
            certificate.spiffe_id = "spiffe://example.org/orders".to_owned();
        }
        assert_eq!(workload.label(), "spiffe://example.org/orders");
        workload.comm = "psql".to_owned();
        workload.remote_address.clear();
        assert_eq!(workload.label(), "psql", "what the kernel says goes before what a client holds");
    }

    #[test]
    fn the_most_telling_name_wins() {
        let mut workload = Workload::default();
        assert_eq!(workload.label(), "unknown");
        workload.comm = "psql".to_owned();
        assert_eq!(workload.label(), "psql");
        workload.executable = "/usr/lib/postgresql/15/bin/psql".to_owned();
        workload.unit = "orders.service".to_owned();
        assert_eq!(workload.label(), "orders.service");
        workload.ai_agent = "claude".to_owned();
        assert_eq!(workload.label(), "psql via claude");
    }
}
