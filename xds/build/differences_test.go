package build

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"
)

func TestDifferences(t *testing.T) {
	from := &Resources{
		Clusters:  []*clusterv3.Cluster{{Name: "same"}, {Name: "other", AltStatName: "a"}, {Name: "gone"}},
		Endpoints: []*endpointv3.ClusterLoadAssignment{{ClusterName: "e"}},
	}
	to := &Resources{
		Clusters:  []*clusterv3.Cluster{{Name: "new"}, {Name: "other", AltStatName: "b"}, {Name: "same"}},
		Endpoints: []*endpointv3.ClusterLoadAssignment{{ClusterName: "e", Policy: &endpointv3.ClusterLoadAssignment_Policy{}}},
	}
	want := []Difference{{"cluster", "gone", "removed"}, {"cluster", "new", "added"}, {"cluster", "other", "changed"}, {"endpoints", "e", "changed"}}
	if diff := cmp.Diff(want, Differences(from, to)); diff != "" {
		t.Error(diff)
	}
	if d := Differences(from, from); d != nil {
		t.Error(d)
	}
}
