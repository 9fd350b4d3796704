package istio

import (
	"testing"

	"istio.io/istio/pilot/pkg/features"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/validation"
	"istio.io/istio/pkg/test"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestX(t *testing.T) {
	test.SetForTest(t, &features.MetadataExchange, false)
	m := mesh.DefaultMeshConfig()
	m.EnableAutoMtls = wrapperspb.Bool(false)
	xds.NewFakeDiscoveryServer(t, xds.FakeOptions{})
	_ = analyzers.AllCombined()
	_ = local.NewIstiodAnalyzer
	_ = validation.ValidateGateway
}
