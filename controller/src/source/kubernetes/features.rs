//! What this mesh says that it can do, in upstream's words: the official suite runs the tests of exactly these.
//!
//! The names are those of `sigs.k8s.io/gateway-api/pkg/features`, v1.7.0. A feature is claimed when all of its tests pass on every run;
//! what works but has no test upstream (sessions, retries of Service-parented routes) isn't claimed.

/// Every feature, in groups for people; what is written is sorted.
const FEATURES: &[&str] = &[
    // Core of the profiles MESH-HTTP and MESH-GRPC.
    "Mesh",      // traffic between pods, pod IPs included, goes through the mesh
    "HTTPRoute", // HTTPRoutes with a Service as parent
    "GRPCRoute", // GRPCRoutes with a Service as parent
    // Extended features of meshes: all that there are.
    "MeshClusterIPMatching", // a route applies to its Service's cluster IP, not to the pods behind it by their own addresses
    "MeshConsumerRoute",     // a route in a client's namespace applies to that namespace's clients only
    "MeshHTTPRouteRewritePath", // URLRewrite: ReplaceFullPath, ReplacePrefixMatch
    "MeshHTTPRouteSchemeRedirect", // RequestRedirect: scheme
    "MeshHTTPRouteRedirectPort", // RequestRedirect: port
    "MeshHTTPRouteRedirectPath", // RequestRedirect: path
    "MeshHTTPRouteBackendRequestHeaderModification", // RequestHeaderModifier on a backendRef
    "MeshHTTPRouteQueryParamMatching", // matches by query parameters
    "MeshHTTPRouteNamedRouteRule", // rules with names
    // Extended features of HTTPRoutes whose tests run on meshes as well.
    "HTTPRouteResponseHeaderModification", // ResponseHeaderModifier on a rule
    "HTTPRouteParentRefPort",              // parentRefs with a port apply to that port only
    "HTTPRoute303RedirectStatusCode",      // RequestRedirect: statusCode 303
    "HTTPRoute307RedirectStatusCode",      // 307
    "HTTPRoute308RedirectStatusCode",      // 308
];

/// The features as a status lists them: sorted (the CRD demands it).
pub(super) fn supported() -> Vec<&'static str> {
    let mut features = FEATURES.to_vec();
    features.sort_unstable();
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_sorted_and_none_is_named_twice() {
        let features = supported();
        assert!(features.is_sorted());
        let mut once = features.clone();
        once.dedup();
        assert_eq!(once, features);
        assert_eq!(features.iter().filter(|feature| feature.starts_with("Mesh")).count(), 10);
    }
}
