//! The DNS names of pods: how a connection says which incarnation of a pod it is for.
//!
//! A pod's IP is used again, often by the same service account, so an address and a SPIFFE ID can't tell a pod from its
//! successor. Its UID can: a certificate carries it as the DNS SAN `<uid>.pod.gamut.mesh`, and a connection between
//! sidecars as its SNI. The name is never resolved.

use gamut_route::Uid;
use rustls_pki_types::{DnsName, ServerName};

/// The domain of all pods' names, with its dot. No other SNI belongs to the mesh.
pub const POD_DOMAIN: &str = ".pod.gamut.mesh";

/// The SNI to connect to this pod's sidecar with.
pub fn server_name(pod: Uid) -> ServerName<'static> {
    // A UUID and a fixed suffix always are a DNS name; were they not, an empty address would match no certificate.
    match DnsName::try_from(pod_name(pod)) {
        Ok(name) => ServerName::DnsName(name),
        Err(_) => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
    }
}

/// The DNS SAN of this pod's certificate.
pub fn pod_name(pod: Uid) -> String {
    format!("{pod}{POD_DOMAIN}")
}

/// The pod that an SNI or a DNS SAN names; `None` for any name that [`pod_name`] doesn't make.
pub fn uid_of_server_name(name: &str) -> Option<Uid> {
    let text = name.strip_suffix(POD_DOMAIN)?;
    // `Uid::of` hashes what isn't a canonical UUID; such a name would be a second spelling.
    let uid = Uid::of(text);
    (uid.to_string() == text).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";

    #[test]
    fn a_pods_name_leads_back_to_its_uid() {
        let uid = Uid::of(POD);
        assert_eq!(server_name(uid).to_str(), "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10.pod.gamut.mesh");
        assert_eq!(uid_of_server_name(&server_name(uid).to_str()), Some(uid));
        let hashed = Uid::of("not-a-uuid");
        assert_eq!(uid_of_server_name(&pod_name(hashed)), Some(hashed));
    }

    #[test]
    fn no_other_name_is_a_pods() {
        for name in [
            "web.shop.svc.cluster.local",
            ".pod.gamut.mesh",
            "not-a-uuid.pod.gamut.mesh",
            "0B8F6F3E-2D5C-4A57-9D0C-5B7D2F1E9A10.pod.gamut.mesh",
            "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10.pod.gamut.mesh.",
            "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10.pod.gamut.mesh.evil",
            "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10.POD.gamut.mesh",
            "x.0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10.pod.gamut.mesh",
            "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10xpod.gamut.mesh",
        ] {
            assert_eq!(uid_of_server_name(name), None, "{name}");
        }
    }
}
