package xds_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
)

// TestPushesCutNoStream: a hundred changes of pools, credentials and endpoints,
// each used at once, while a stream is open; no listener is touched.
func TestPushesCutNoStream(t *testing.T) {
	t.Parallel()
	for _, sotw := range []bool{false, true} {
		t.Run(fmt.Sprintf("sotw=%t", sotw), func(t *testing.T) {
			stop := make(chan struct{})
			stream := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				for open := true; open; {
					fmt.Fprint(w, "data: x\n\n")
					w.(http.Flusher).Flush()
					select {
					case <-stop:
						open = false
					case <-r.Context().Done():
						open = false
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
			echo := startBackend(t, answering(200, "ok"))
			withKey := func(i int) *plan.Plan {
				p := pool("echo", echo.endpoint(t))
				p.Credential = &plan.Credential{Header: "authorization", Value: fmt.Sprintf("Bearer %d", i)}
				temporary := pool(fmt.Sprintf("t%d", i), echo.endpoint(t))
				temporary.Credential = &plan.Credential{Header: "x-key", Value: fmt.Sprintf("key %d", i)}
				next := planOf(pool("stream", stream.endpoint(t)), p, temporary)
				next.Bounds.MaxBodyBytes += int64(i)
				return next
			}
			r := startRig(t, withKey(0), sotw)
			r.ext.to("stream")
			wait := r.openStream()
			for i := 1; i <= 100; i++ {
				version := r.publish(withKey(i))
				if i%10 != 0 {
					continue
				}
				r.accepted(version)
				r.ext.to(fmt.Sprintf("t%d", i))
				if a := r.post("{}"); a.status != 200 {
					t.Fatalf("after push %d: %+v", i, a)
				}
				seen := echo.requests()
				if got, want := seen[len(seen)-1].Get("x-key"), fmt.Sprintf("key %d", i); got != want {
					t.Errorf("credential %q, want %q", got, want)
				}
				r.ext.to("echo")
				r.post("{}")
				seen = echo.requests()
				if got, want := seen[len(seen)-1].Get("authorization"), fmt.Sprintf("Bearer %d", i); got != want {
					t.Errorf("rotated credential %q, want %q", got, want)
				}
			}
			close(stop)
			if n := wait(); n < 5 {
				t.Errorf("%d events", n)
			}
			r.untouched()
		})
	}
}

// accepted waits until Envoy uses the version.
func (r *rig) accepted(version string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := r.server.WaitACK(ctx, version); err != nil {
		r.t.Fatalf("%v\n%+v", err, r.server.Status())
	}
	for {
		warm, err := r.proc.Admin.Warm(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		if warm {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// untouched checks that no listener was changed, replaced or drained.
func (r *rig) untouched() {
	r.t.Helper()
	stats, err := r.proc.Admin.Stats(r.t.Context(), `^listener_manager\.(listener_(added|modified|removed|in_place_updated)|total_listeners_draining|total_filter_chains_draining)$`)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(stats) < 5 {
		r.t.Fatalf("statistics are missing: %v", stats)
	}
	for name, v := range stats {
		want := int64(0)
		if strings.HasSuffix(name, "listener_added") {
			want = 1
		}
		if v != want {
			r.t.Errorf("%s is %d, want %d", name, v, want)
		}
	}
}

// TestRetiredClusterServes: requests decided under the old plan still find its
// pools during the grace period, and no longer after it.
func TestRetiredClusterServes(t *testing.T) {
	t.Parallel()
	echo := startBackend(t, answering(200, "ok"))
	r := startRig(t, planOf(pool("old", echo.endpoint(t)), pool("new", echo.endpoint(t))), false)
	r.accepted(r.publish(planOf(pool("new", echo.endpoint(t)))))
	r.ext.to("old")
	if a := r.post("{}"); a.status != 200 {
		t.Fatalf("%+v", a)
	}
	if n := r.server.Status().Retired; n != 2 {
		t.Errorf("%d retired resources, want a cluster and its endpoints", n)
	}
	deadline := time.Now().Add(10 * time.Second)
	for r.post("{}").status != 503 {
		if time.Now().After(deadline) {
			t.Fatal("the retired cluster never goes")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestEnvoyRefuses: what a real Envoy refuses is taken back, said, and not sent
// again; traffic goes on; the next good version is taken.
func TestEnvoyRefuses(t *testing.T) {
	t.Parallel()
	for _, sotw := range []bool{false, true} {
		t.Run(fmt.Sprintf("sotw=%t", sotw), func(t *testing.T) {
			first, second := startBackend(t, answering(200, "first")), startBackend(t, answering(200, "second"))
			r := startRig(t, planOf(pool("a", first.endpoint(t))), sotw)
			r.ext.to("a")

			broken := pool("b", first.endpoint(t))
			broken.Scheme, broken.CAFile = "https", "/nonexistent/ca.pem"
			moved := pool("a", second.endpoint(t))
			moved.ConnectTimeout = time.Second
			bad := planOf(moved, broken)
			version := r.publish(bad)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var rejected *xds.RejectedError
			if err := r.server.WaitACK(ctx, version); !errors.As(err, &rejected) {
				t.Fatalf("WaitACK: %v\n%+v", err, r.server.Status())
			}
			if rejected.Type != "Cluster" || rejected.Node != "rig" || !strings.Contains(rejected.Detail, "ca.pem") {
				t.Errorf("%+v", rejected.Rejection)
			}
			back := r.server.Status().Version
			if back == version {
				t.Error("the refused version is still the current one")
			}
			r.accepted(back)
			if a := r.post("{}"); a.body != "first" {
				t.Errorf("after the refusal: %+v", a)
			}
			if _, err := r.server.Publish(r.resources(bad)); !errors.As(err, &rejected) {
				t.Errorf("published again: %v", err)
			}
			stats, err := r.proc.Admin.Stats(t.Context(), `^cluster_manager\.cds\.update_rejected$`)
			if n := stats["cluster_manager.cds.update_rejected"]; err != nil || n != 1 {
				t.Errorf("refused %d times (%v)", n, err)
			}
			r.accepted(r.publish(planOf(moved)))
			if a := r.post("{}"); a.body != "second" {
				t.Errorf("after the next version: %+v", a)
			}
			r.untouched()
		})
	}
}
