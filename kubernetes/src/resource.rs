//! Which objects: a resource of the API, and which part of it.

/// A resource as requests address it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind, as in `kind`.
    pub kind: &'static str,
    /// The plural, as in paths.
    pub plural: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// Which objects of a resource: all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only this namespace's.
    pub namespace: Option<String>,
    /// Only those whose fields are such, as in `metadata.name=gamut`.
    pub fields: Option<String>,
    /// Only those with such labels, as in `app=web,!canary`.
    pub labels: Option<String>,
    /// Without `spec`, `data` and `status`.
    pub metadata_only: bool,
}

impl Resource {
    /// A resource whose objects live in namespaces.
    pub const fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural, namespaced: true }
    }

    /// A resource whose objects are the whole cluster's.
    pub const fn cluster(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self { group, version, kind, plural, namespaced: false }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The path of its objects: of one namespace, or, without one, of all.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }
}

impl Selection {
    /// One object by its name.
    pub fn named(namespace: Option<&str>, name: &str) -> Self {
        Self {
            namespace: namespace.map(str::to_owned),
            fields: Some(format!("metadata.name={name}")),
            ..Self::default()
        }
    }

    /// Objects with these labels, in all namespaces.
    pub fn labelled(labels: &str) -> Self {
        Self { labels: Some(labels.to_owned()), ..Self::default() }
    }

    /// The same objects, without all that isn't metadata.
    pub fn metadata_only(self) -> Self {
        Self { metadata_only: true, ..self }
    }
}

/// Resources that are Kubernetes' own.
pub mod core {
    use super::Resource;

    /// Services.
    pub const SERVICE: Resource = Resource::namespaced("", "v1", "Service", "services");
    /// Pods.
    pub const POD: Resource = Resource::namespaced("", "v1", "Pod", "pods");
    /// Deployments.
    pub const DEPLOYMENT: Resource = Resource::namespaced("apps", "v1", "Deployment", "deployments");
    /// StatefulSets.
    pub const STATEFUL_SET: Resource = Resource::namespaced("apps", "v1", "StatefulSet", "statefulsets");
    /// DaemonSets.
    pub const DAEMON_SET: Resource = Resource::namespaced("apps", "v1", "DaemonSet", "daemonsets");
    /// Jobs.
    pub const JOB: Resource = Resource::namespaced("batch", "v1", "Job", "jobs");
    /// CronJobs.
    pub const CRON_JOB: Resource = Resource::namespaced("batch", "v1", "CronJob", "cronjobs");
    /// Namespaces.
    pub const NAMESPACE: Resource = Resource::cluster("", "v1", "Namespace", "namespaces");
    /// ConfigMaps.
    pub const CONFIG_MAP: Resource = Resource::namespaced("", "v1", "ConfigMap", "configmaps");
    /// Secrets.
    pub const SECRET: Resource = Resource::namespaced("", "v1", "Secret", "secrets");
    /// EndpointSlices.
    pub const ENDPOINT_SLICE: Resource =
        Resource::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
    /// Leases.
    pub const LEASE: Resource = Resource::namespaced("coordination.k8s.io", "v1", "Lease", "leases");
    /// Events: what `kubectl describe` shows.
    pub const EVENT: Resource = Resource::namespaced("", "v1", "Event", "events");
    /// Configurations of webhooks that change objects.
    pub const MUTATING_WEBHOOK_CONFIGURATION: Resource = Resource::cluster(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    );
    /// TokenReviews: created, answered, and never stored.
    pub const TOKEN_REVIEW: Resource =
        Resource::cluster("authentication.k8s.io", "v1", "TokenReview", "tokenreviews");
    /// ClusterTrustBundles, in the versions that there are, the newer one first. Few clusters serve any.
    pub const CLUSTER_TRUST_BUNDLES: [Resource; 2] =
        [cluster_trust_bundle("v1beta1"), cluster_trust_bundle("v1alpha1")];

    const fn cluster_trust_bundle(version: &'static str) -> Resource {
        Resource::cluster("certificates.k8s.io", version, "ClusterTrustBundle", "clustertrustbundles")
    }
}

/// Routes of the Gateway API, each kind in the versions that clusters may serve it in, the preferred one first.
pub mod routes {
    use super::Resource;

    /// The group of the Gateway API.
    const GROUP: &str = "gateway.networking.k8s.io";

    /// HTTPRoutes.
    pub const HTTP: [Resource; 2] = [http("v1"), http("v1beta1")];
    /// GRPCRoutes.
    pub const GRPC: [Resource; 2] = [grpc("v1"), grpc("v1alpha2")];
    /// TLSRoutes.
    pub const TLS: [Resource; 3] = [tls("v1"), tls("v1alpha3"), tls("v1alpha2")];
    /// TCPRoutes.
    pub const TCP: [Resource; 2] = [tcp("v1"), tcp("v1alpha2")];

    const fn http(version: &'static str) -> Resource {
        Resource::namespaced(GROUP, version, "HTTPRoute", "httproutes")
    }

    const fn grpc(version: &'static str) -> Resource {
        Resource::namespaced(GROUP, version, "GRPCRoute", "grpcroutes")
    }

    const fn tls(version: &'static str) -> Resource {
        Resource::namespaced(GROUP, version, "TLSRoute", "tlsroutes")
    }

    const fn tcp(version: &'static str) -> Resource {
        Resource::namespaced(GROUP, version, "TCPRoute", "tcproutes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(core::POD.path(None), "/api/v1/pods");
        assert_eq!(core::POD.path(Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(core::NAMESPACE.path(Some("shop")), "/api/v1/namespaces");
        assert_eq!(core::LEASE.path(Some("shop")), "/apis/coordination.k8s.io/v1/namespaces/shop/leases");
        assert_eq!(core::LEASE.api_version(), "coordination.k8s.io/v1");
        assert_eq!(core::POD.api_version(), "v1");
    }
}
