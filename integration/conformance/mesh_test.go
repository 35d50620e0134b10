// The official Gateway API conformance suite, run against whatever cluster KUBECONFIG names.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	_ "sigs.k8s.io/gateway-api/conformance/tests"
	_ "sigs.k8s.io/gateway-api/conformance/tests/mesh"
)

func TestMesh(t *testing.T) { conformance.RunConformance(t) }
