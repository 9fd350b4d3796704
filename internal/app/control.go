package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/control/api"
	controlredis "github.com/weirproxy/weir/control/redis"
	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/rollout"
)

// adminSocket is the name of the admin API's socket in the runtime directory.
const adminSocket = "admin.sock"

// AdminSocket is where a weir on this data directory serves its admin API.
func AdminSocket(dataDir string) (string, error) {
	if _, err := os.Stat(dataDir); err != nil { // it must not be made by looking
		return "", err
	}
	dir, err := envoy.RuntimeDir(dataDir)
	return filepath.Join(dir, adminSocket), err
}

// controls is the control store of a process that decides about requests, and what
// keeps the keys as the store has them.
type controls struct {
	ring   *plan.Ring
	keeper *control.Keeper
	// rollouts are those of the plan in force.
	rollouts *rollout.Manager
	tls      *api.TLSServer // nil when the API is served on the socket only
}

// startControl opens the control store and takes its keys in, before anything is
// decided: a store that cannot be read ends the start.
func (a *app) startControl(ctx context.Context, p *plan.Plan) error {
	store, err := openControl(ctx, a.dir, p, controlredis.Open)
	if err != nil {
		return err
	}
	a.onStop(func() { _ = store.Close() })
	if s, ok := store.(*controlredis.Store); ok {
		if doubts := s.Doubts(ctx); doubts != "" {
			a.log.Warn("control store: " + doubts)
		}
	}
	ring := plan.NewRing()
	follower := control.NewFollower(store, ring, a.log)
	if err := follower.Sync(ctx); err != nil {
		return err
	}
	a.controls = &controls{ring: ring, keeper: &control.Keeper{Store: store, Follower: follower, Plan: a.plan.Load}}
	if a.controls.rollouts, err = a.newRollouts(); err != nil {
		return err
	}
	a.reg.MustRegister(follower, a.controls.rollouts)
	a.checks["control"] = follower.Ready
	a.background("control store", follower.Run)
	p.Stored = ring
	return nil
}

// checkControl holds that a plan goes together with what the control store has.
func (a *app) checkControl(ctx context.Context, p *plan.Plan) error {
	if a.controls == nil {
		return nil
	}
	if err := control.CheckHashSecret(ctx, a.controls.keeper.Store, p); err != nil {
		return err
	}
	return a.controls.keeper.Clash(ctx, p)
}

// bindControl resolves stored keys under a plan that is about to decide, and warns
// of those that it leaves without a team, an application or a role.
func (a *app) bindControl(p *plan.Plan) {
	if a.controls == nil {
		return
	}
	for _, o := range a.controls.ring.Bind(p) {
		a.log.Warn("stored keys are refused: what they name is not in the configuration", "gone", o.Gone, "keys", o.Keys, "list", "weir key list --status key_orphaned")
	}
	if a.controls.tls != nil {
		if err := a.controls.tls.Use(p.AdminAPI); err != nil {
			a.log.Error("admin API: it goes on with what was configured before", "err", err)
		}
	}
}

// serveControl serves the admin API; there must be a plan in force.
func (a *app) serveControl(p *plan.Plan) error {
	if a.controls == nil {
		if p.AdminAPI != nil {
			a.log.Warn("admin.api is served where the role extproc runs, and not here")
		}
		return nil
	}
	socket, err := AdminSocket(a.dir)
	if err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	l, err := listen("unix:" + socket)
	if err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	server := api.New(api.Options{Keeper: a.controls.keeper, Budgets: budgets{a.limits, a.plan.Load}, Log: a.log, Metrics: a.reg})
	local := server.SocketServer()
	a.serveHTTP("admin API on its socket", local, func() error { return local.Serve(l) })
	if p.AdminAPI == nil {
		return nil
	}
	if a.controls.tls, err = server.NewTLSServer(p.AdminAPI); err != nil {
		return err
	}
	remote, err := net.Listen("tcp", p.AdminAPI.Address)
	if err != nil {
		return fmt.Errorf("admin.api.address: %w", err)
	}
	a.log.Info("admin API", "address", remote.Addr().String())
	a.serveHTTP("admin API", a.controls.tls.Server, func() error { return a.controls.tls.ServeTLS(remote, "", "") })
	return nil
}

// serveHTTP serves until stop, and lets calls under way finish then.
func (a *app) serveHTTP(name string, s *http.Server, serve func() error) {
	a.onStop(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			_ = s.Close()
		}
	})
	go func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- fmt.Errorf("%s: %w", name, err)
		}
	}()
}
