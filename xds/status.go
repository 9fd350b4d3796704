package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is what is published, and who has it.
type Status struct {
	Version string       `json:"version"` // "" before the first publication
	Nodes   []NodeStatus `json:"nodes"`
	Retired int          `json:"retired"`                  // resources that are served for the grace period only
	Last    *Rejection   `json:"last_rejection,omitempty"` // the last refusal, if any
}

// NodeStatus is one Envoy, by node id.
type NodeStatus struct {
	ID      string `json:"id"`
	Streams int    `json:"streams"`
	// Acked is the version that it last accepted, by type (Cluster, Listener, …).
	Acked map[string]string `json:"acked"`
	// Current tells that it has accepted everything that is published.
	Current bool `json:"current"`
	// Held is why it is kept at an older version, if it is.
	Held *Rejection `json:"held,omitempty"`
	// Types is how it stands with each type, in the order in which they are sent.
	Types []TypeStatus `json:"types"`
}

// TypeStatus is what one Envoy has of one type of resource.
type TypeStatus struct {
	Type   string `json:"type"`
	Wanted string `json:"wanted"` // the version that is published
	Held   string `json:"held"`   // the version that it last accepted; "" for none
	// Current tells that it has accepted all that is published. It need not have
	// been sent a new version that changes nothing for it.
	Current bool `json:"current"`
	// Since is when it came to be so: when it accepted what it holds, or when what
	// it has not accepted was published.
	Since time.Time `json:"since,omitzero"`
}

// Status tells the state of now.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Retired: len(s.kept), Last: s.last}
	if s.current != nil {
		st.Version = s.current.set.version
	}
	for _, n := range s.nodes {
		ns := NodeStatus{ID: n.id, Streams: len(n.streams), Acked: make(map[string]string), Held: n.held}
		for _, stream := range n.streams {
			for i, k := range kinds {
				if stream.types[i].version != "" {
					ns.Acked[shortType(k.url)] = stream.types[i].version
				}
			}
		}
		ns.Types = s.typesOf(n)
		ns.Current = s.current != nil && n.held == nil && s.has(n, s.current)
		st.Nodes = append(st.Nodes, ns)
	}
	slices.SortFunc(st.Nodes, func(a, b NodeStatus) int { return strings.Compare(a.ID, b.ID) })
	return st
}

// typesOf compares what a node has accepted with what is published for all: one
// that is held back at an older version lacks it.
func (s *Server) typesOf(n *node) []TypeStatus {
	if s.current == nil {
		return nil
	}
	list := make([]TypeStatus, len(kinds))
	for i, k := range kinds {
		t := TypeStatus{Type: shortType(k.url), Wanted: s.current.snap.GetVersion(k.url), Current: true}
		for key, st := range n.streams {
			sub := &st.types[i]
			if sub.version != "" {
				t.Held, t.Since = sub.version, sub.at
			}
			t.Current = t.Current && st.has(i, s.current, key.delta)
		}
		if !t.Current {
			t.Since = s.published
		}
		list[i] = t
	}
	return list
}

// has tells that all streams of the node have accepted everything.
func (s *Server) has(n *node, c *composed) bool {
	for key, st := range n.streams {
		for i := range kinds {
			if !st.has(i, c, key.delta) {
				return false
			}
		}
	}
	return true
}

// ErrSuperseded says that another version was published meanwhile.
var ErrSuperseded = errors.New("xds: another version was published meanwhile")

// WaitACK waits until at least one Envoy is connected and every one that is has
// accepted the version. It fails with *RejectedError when one refuses it, with
// ErrSuperseded when it is no longer the one that is served, and with ctx.
func (s *Server) WaitACK(ctx context.Context, version string) error {
	for {
		done, changed, err := s.acked(version)
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("xds: version %s is not accepted yet: %w", version, ctx.Err())
		}
	}
}

// acked tells whether it has come about, and if not, when to look again.
func (s *Server) acked(version string) (bool, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && s.last.Version == version {
		return false, nil, &RejectedError{*s.last}
	}
	if s.current == nil || s.current.set.version != version {
		return false, nil, ErrSuperseded
	}
	if len(s.nodes) == 0 {
		return false, s.changed, nil
	}
	for _, n := range s.nodes {
		if !s.has(n, s.current) {
			return false, s.changed, nil
		}
	}
	return true, nil, nil
}
