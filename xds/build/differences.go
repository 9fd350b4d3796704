package build

import (
	"maps"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
)

// Difference is a resource that two configurations do not have alike.
type Difference struct {
	Type string `json:"type"` // listener, route, cluster, endpoints, secret or extension
	Name string `json:"name"`
	Is   string `json:"is"` // added, removed or changed
}

// Differences are the resources that Envoys would be sent, or told to drop, when one
// configuration follows another: by type, then by name.
func Differences(from, to *Resources) []Difference {
	var d differences
	compare(&d, "listener", from.Listeners, to.Listeners)
	compare(&d, "route", from.Routes, to.Routes)
	compare(&d, "cluster", from.Clusters, to.Clusters)
	compare(&d, "secret", from.Secrets, to.Secrets)
	compare(&d, "extension", from.Extensions, to.Extensions)
	compareBy(&d, "endpoints", from.Endpoints, to.Endpoints, (*endpointv3.ClusterLoadAssignment).GetClusterName)
	return d
}

type differences []Difference

type named interface {
	proto.Message
	GetName() string
}

func compare[R named](d *differences, kind string, from, to []R) {
	compareBy(d, kind, from, to, R.GetName)
}

func compareBy[R proto.Message](d *differences, kind string, from, to []R, name func(R) string) {
	was, is := map[string]R{}, map[string]R{}
	for _, r := range from {
		was[name(r)] = r
	}
	for _, r := range to {
		is[name(r)] = r
	}
	all := slices.AppendSeq(slices.Collect(maps.Keys(was)), maps.Keys(is))
	slices.Sort(all)
	for _, n := range slices.Compact(all) {
		before, had := was[n]
		after, has := is[n]
		switch {
		case !had:
			*d = append(*d, Difference{kind, n, "added"})
		case !has:
			*d = append(*d, Difference{kind, n, "removed"})
		case !proto.Equal(before, after):
			*d = append(*d, Difference{kind, n, "changed"})
		}
	}
}
