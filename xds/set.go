package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/weirproxy/weir/xds/build"
)

// kind is one type of resource that weir serves.
type kind struct {
	url   string
	slot  types.ResponseType
	keeps keep
}

// keep says which retired resources of a type stay for the grace period.
type keep uint8

const (
	keepNone keep = iota
	// keepAcked: only what an Envoy has accepted can be in use, and nothing else
	// may stay: it could be what will be refused.
	keepAcked
	// keepAll: a cluster that is not warm yet waits for them, and Envoy takes no
	// other cluster meanwhile; a listener that is drained still has its filters.
	keepAll
)

// kinds, in the order in which a change is made before a break.
var kinds = [...]kind{
	{resourcev3.ClusterType, types.Cluster, keepAcked},
	{resourcev3.EndpointType, types.Endpoint, keepAll},
	{resourcev3.SecretType, types.Secret, keepAll},
	{resourcev3.ListenerType, types.Listener, keepNone},
	{resourcev3.RouteType, types.Route, keepNone},
	{resourcev3.ExtensionConfigType, types.ExtensionConfig, keepAll},
}

type items map[string]types.ResourceWithTTL

// set is what was published at one time.
type set struct {
	version  string             // of all types together
	versions [len(kinds)]string // by type
	items    [len(kinds)]items  // by type and name
	acked    [len(kinds)]bool   // some Envoy has accepted the type
	rejected *Rejection         // some Envoy has refused it, none had accepted it
}

func newSet(r *build.Resources) (*set, error) {
	s := &set{}
	var errs [len(kinds)]error
	s.versions[0], errs[0] = build.Hash(r.Clusters)
	s.versions[1], errs[1] = build.Hash(r.Endpoints)
	s.versions[2], errs[2] = build.Hash(r.Secrets)
	s.versions[3], errs[3] = build.Hash(r.Listeners)
	s.versions[4], errs[4] = build.Hash(r.Routes)
	s.versions[5], errs[5] = build.Hash(r.Extensions)
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("xds: %s: %w", shortType(kinds[i].url), err)
		}
	}
	s.items = [...]items{
		index(r.Clusters), index(r.Endpoints), index(r.Secrets), index(r.Listeners), index(r.Routes), index(r.Extensions),
	}
	sum := sha256.New()
	for _, v := range s.versions {
		fmt.Fprintf(sum, "%s ", v)
	}
	s.version = hex.EncodeToString(sum.Sum(nil)[:8])
	return s, nil
}

func index[R types.Resource](list []R) items {
	m := make(items, len(list))
	for _, r := range list {
		m[cachev3.GetResourceName(r)] = types.ResourceWithTTL{Resource: r}
	}
	return m
}

// retired is a resource that the current set no longer has.
type retired struct {
	kind  int
	name  string
	item  types.ResourceWithTTL
	from  *set
	until time.Time
}

// composed is a set as it is sent: with what is retired but still kept.
type composed struct {
	set  *set
	snap *cachev3.Snapshot
}

// compose makes the snapshot. again numbers the times that a type was put back
// after a refusal: Envoy may have taken half of what it refused, so what is put
// back must be sent even though its content is the one accepted before.
func compose(s *set, kept []retired, again [len(kinds)]int) (*composed, error) {
	snap := &cachev3.Snapshot{}
	for i, k := range kinds {
		all, version := s.items[i], s.versions[i]
		var extra []string
		for _, r := range kept {
			if r.kind == i {
				if len(extra) == 0 {
					all = maps.Clone(all)
				}
				all[r.name] = r.item
				extra = append(extra, r.name)
			}
		}
		if len(extra) > 0 {
			slices.Sort(extra)
			sum := sha256.Sum256(fmt.Appendf(nil, "%q", extra))
			version += "+" + hex.EncodeToString(sum[:4])
		}
		if again[i] > 0 {
			version = fmt.Sprintf("%s.%d", version, again[i])
		}
		snap.Resources[k.slot] = cachev3.Resources{Version: version, Items: all}
	}
	if err := snap.ConstructVersionMap(); err != nil {
		return nil, fmt.Errorf("xds: %w", err)
	}
	return &composed{set: s, snap: snap}, nil
}

func emptySet() *set {
	s := &set{version: "none"}
	for i := range s.items {
		s.items[i] = items{}
		s.versions[i] = "none"
	}
	return s
}

func kindOf(typeURL string) (int, bool) {
	for i, k := range kinds {
		if k.url == typeURL {
			return i, true
		}
	}
	return 0, false
}

// shortType is the message's name: Cluster, Listener, ….
func shortType(url string) string {
	for i := len(url) - 1; i >= 0; i-- {
		if url[i] == '.' || url[i] == '/' {
			return url[i+1:]
		}
	}
	return url
}
