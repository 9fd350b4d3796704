package app

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// check tells what keeps a role from serving; nil when nothing does.
type check func() error

// admin is weir's own HTTP address: health, readiness, metrics, status, profiles. It has
// no authentication, so it answers on loopback unless configured otherwise.
type admin struct {
	server   *http.Server
	listener net.Listener
}

// newAdmin makes the server of a listener. The checks apart are no part of /readyz.
func newAdmin(l net.Listener, checks, apart map[string]check, status func() any, reg *prometheus.Registry, extra map[string]http.HandlerFunc) *admin {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "text/plain")
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { serveChecks(w, checks) })
	mux.HandleFunc("GET /readyz/{role}", func(w http.ResponseWriter, r *http.Request) {
		role := r.PathValue("role")
		c, ok := checks[role]
		if !ok {
			c, ok = apart[role]
		}
		if !ok {
			http.Error(w, "no such role runs here", http.StatusNotFound)
			return
		}
		serveChecks(w, map[string]check{role: c})
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(status())
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	for pattern, h := range extra {
		mux.HandleFunc(pattern, h)
	}
	return &admin{listener: l, server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}}
}

// serveChecks answers 200 when every check passes, 503 with the reasons otherwise.
func serveChecks(w http.ResponseWriter, checks map[string]check) {
	roles := make([]string, 0, len(checks))
	for role := range checks {
		roles = append(roles, role)
	}
	sort.Strings(roles)
	code, answer := http.StatusOK, map[string]string{}
	for _, role := range roles {
		answer[role] = "ready"
		if err := checks[role](); err != nil {
			code, answer[role] = http.StatusServiceUnavailable, err.Error()
		}
	}
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

func (a *admin) url() string { return "http://" + a.listener.Addr().String() }

func (a *admin) serve() error {
	if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *admin) stop(ctx context.Context) {
	if err := a.server.Shutdown(ctx); err != nil {
		_ = a.server.Close()
	}
}
