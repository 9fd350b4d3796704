package plan

import (
	"crypto/tls"
	"reflect"
	"time"
)

// LimitStore is where several replicas count limits together.
type LimitStore struct {
	Addresses      []string // host:port, or unix:/path
	SentinelMaster string   // the addresses are sentinels
	Cluster        bool     // the addresses are nodes of a cluster
	Username       string
	Password       string
	TLS            *tls.Config // nil: in the clear
	Name           string      // of the deployment
	Replicas       int
	Allowance      int // per cent of each limit; 0 refuses while the store is away
	Timeout        time.Duration
}

// Alike tells whether two stores are the same one, reached in the same way. The
// content of their certificates is not compared.
func (s *LimitStore) Alike(o *LimitStore) bool {
	if s == nil || o == nil {
		return s == o
	}
	a, b := *s, *o
	a.TLS, b.TLS = nil, nil
	return reflect.DeepEqual(a, b) && (s.TLS == nil) == (o.TLS == nil)
}
