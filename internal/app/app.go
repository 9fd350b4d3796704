// Package app wires weir's parts into one process and runs it: what `weir up`
// and `weir serve` do. It decides nothing about requests.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"

	"github.com/weirproxy/weir/extproc"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/extproc/stage/route"
	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/history"
	"github.com/weirproxy/weir/internal/live"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit/redis"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/tokens"
	"github.com/weirproxy/weir/usage"
	"github.com/weirproxy/weir/usage/store/sqlite"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

// Role is a part of weir that can run apart from the others.
type Role string

// The roles. The external processor and the usage receiver share reservations,
// so one process runs both.
const (
	RoleExtProc Role = "extproc"
	RoleXDS     Role = "xds"
	RoleUsage   Role = "usage"
)

var allRoles = []Role{RoleExtProc, RoleXDS, RoleUsage}

// ParseRoles reads role names.
func ParseRoles(names []string) ([]Role, error) {
	var roles []Role
	for _, name := range names {
		r := Role(strings.TrimSpace(name))
		if !slices.Contains(allRoles, r) {
			return nil, fmt.Errorf("unknown role %q: want extproc, xds or usage", r)
		}
		if !slices.Contains(roles, r) {
			roles = append(roles, r)
		}
	}
	return roles, nil
}

// ServerTLS names the PEM files of a mutually authenticated gRPC address.
type ServerTLS struct{ CertFile, KeyFile, ClientCAFile string }

// Options say what to run. Up and Serve each read the fields that concern them.
type Options struct {
	ConfigPath string
	DataDir    string // overrides the configuration's
	Replica    string // of several that share a limit store; the host's name if empty
	Stdout     io.Writer
	Stderr     io.Writer
	Log        *slog.Logger

	// Up.
	EnvoyPath        string
	EnvoyConcurrency int
	RequestLines     bool
	// Hurry, when it is closed, ends the wait for open streams.
	Hurry <-chan struct{}

	// Serve.
	Roles            []Role
	GRPCAddress      string // host:port or unix:/path
	AdvertiseAddress string
	TLS              ServerTLS
	EnvoyTLS         *build.ClientTLS // files on Envoy's machine
	WasmPath         string

	// Upgrade tells weir to become the program that lies where it was started from.
	Upgrade <-chan os.Signal
}

func (o *Options) has(r Role) bool { return slices.Contains(o.Roles, r) }

// watchDebounce is how long the configuration's files must be quiet before a
// change is looked at.
const watchDebounce = 50 * time.Millisecond

// maxStoreLag is when usage is not ready any more. Nothing is lost then: events
// wait in the spool.
const maxStoreLag = time.Minute

// app is one running weir. A failed construction unwinds through stop.
type app struct {
	o       Options
	log     *slog.Logger
	dir     string // data directory, absolute
	ports   *ports
	sockets *sockets
	reg     *prometheus.Registry
	plan    atomic.Pointer[plan.Plan]
	limits  *keeper
	rests   *route.Rests  // pools that asked to be left alone
	live    *live.Table   // what is known of the pools
	shared  *redis.Ledger // the ledger of the limit store; nil without one
	learned *lessons
	usage   *usage.Recorder
	xds     *xds.Server
	admin   *admin
	watcher *config.Watcher
	// controls are the stored keys and their API; nil where no request is decided.
	controls *controls
	checks   map[string]check
	// apart are checks that are asked for by name and do not keep weir from being
	// ready: one strange Envoy must not take weir away from all others.
	apart    map[string]check
	dog      watchdog
	changed  chan struct{}      // has an element when a plan came into force
	ownEnvoy bool               // weir up: the listeners are on this machine
	pipe     *pipeline.Pipeline // nil without the role extproc
	// warm waits, for a bounded time, until Envoy uses what it has accepted; nil
	// where the Envoys are somebody else's.
	warm    func(context.Context)
	options build.Options // of the xDS resources; fixed once Envoy's side is known

	applying sync.Mutex // one configuration at a time
	changing sync.Mutex // one change of what is to be in force at a time
	versions *history.Store
	number   atomic.Int64 // of the entry by which the plan came into force
	text     []byte       // what load read last; the start's
	pin      *history.Pin // by which it was that; nil: by the file
	reload   reloadState

	cleanups []func()
	failed   chan error // the first part that stopped on its own

	draining  atomic.Bool // it stops, and answers for a little while yet
	upgrading bool        // it stops for the next weir
}

// newApp loads the configuration and takes the data directory.
func newApp(o Options) (_ *app, _ *plan.Plan, err error) {
	a := &app{
		o: o, rests: route.NewRests(), live: live.NewTable(), log: o.Log, reg: prometheus.NewRegistry(),
		checks: map[string]check{}, apart: map[string]check{}, changed: make(chan struct{}, 1), failed: make(chan error, 8),
	}
	a.live.Rests = a.rests.Until
	defer func() {
		if err != nil {
			a.stop()
		}
	}()
	if a.sockets, err = inheritSockets(); err != nil {
		return nil, nil, err
	}
	// A first look without creating anything: a bad configuration leaves no trace.
	p, err := firstLook(o)
	if err != nil {
		return nil, nil, err
	}
	if a.dir, err = filepath.Abs(p.DataDir); err != nil {
		return nil, nil, err
	}
	release, err := lockDataDir(a.dir)
	if err != nil {
		return nil, nil, err
	}
	a.onStop(release)
	a.versions = openVersions(a.dir)
	if a.ports, err = openPorts(a.dir); err != nil {
		return nil, nil, err
	}
	// Watched first and loaded then, so that no change falls between.
	if a.watcher, err = config.Watch(o.ConfigPath, config.WatchOptions{Debounce: watchDebounce, Instead: a.pinned}); err != nil {
		return nil, nil, err
	}
	if p, err = a.load(); err != nil {
		return nil, nil, err
	}
	a.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.registerReload()
	a.reg.MustRegister(&a.dog)
	return a, p, nil
}

// firstLook reads what is to be in force and creates nothing.
func firstLook(o Options) (*plan.Plan, error) {
	p, err := config.Load(o.ConfigPath, config.Options{DataDir: o.DataDir, ReadOnly: true})
	if err == nil {
		return p, nil
	}
	// A file that is no good does not matter while another version is pinned.
	if s, sourceErr := readSource(openVersions(dataDirOf(o)), o.ConfigPath); sourceErr == nil && s.pin != nil {
		return config.Parse(o.ConfigPath, s.text, config.Options{DataDir: o.DataDir, ReadOnly: true})
	}
	return p, err
}

// dataDirOf is the data directory, as far as can be told of a file that is no good: as it
// says, where it can be read, and else the default.
func dataDirOf(o Options) string {
	if o.DataDir != "" {
		return o.DataDir
	}
	if text, err := config.Text(o.ConfigPath); err == nil {
		if c, err := config.Read(o.ConfigPath, text); err == nil && c.GetDataDir() != "" {
			return c.GetDataDir()
		}
	}
	return DefaultDataDir
}

// load reads what is to be in force: the configuration file as it is now, or the version
// that is pinned.
func (a *app) load() (*plan.Plan, error) {
	s, err := readSource(a.versions, a.o.ConfigPath)
	if err != nil {
		return nil, err
	}
	if s.pin != nil {
		a.log.Warn("configuration: a rollback pinned a version; the file is not in force until it changes", "number", s.pin.Number, "since", s.pin.Time)
	}
	a.text, a.pin = s.text, s.pin
	return a.compile(s.text)
}

// compile compiles a configuration for this machine.
func (a *app) compile(text []byte) (*plan.Plan, error) {
	var warnings []config.Fault
	p, err := config.Parse(a.o.ConfigPath, text, config.Options{DataDir: a.dir, Warn: func(f config.Fault) {
		a.log.Warn("configuration", "warning", f.String())
		warnings = append(warnings, f)
	}})
	if err != nil {
		return nil, err
	}
	if a.controls != nil {
		p.Stored = a.controls.ring
	}
	a.reload.warn(warnings)
	return a.ports.resolve(p)
}

func (a *app) onStop(f func()) { a.cleanups = append(a.cleanups, f) }

// stop undoes what was started, the newest first.
func (a *app) stop() {
	for _, f := range slices.Backward(a.cleanups) {
		f()
	}
	a.cleanups = nil
}

// background runs f until stop; f's error ends weir.
func (a *app) background(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && ctx.Err() == nil {
			select {
			case a.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
	a.onStop(func() { cancel(); <-done })
}

// startUsage opens the journal and the store, and puts back what the limits
// counted before the restart.
func (a *app) startUsage(ctx context.Context, p *plan.Plan, onEvent func(*usagev1.Event)) error {
	store, err := sqlite.Open(ctx, filepath.Join(a.dir, StoreFile))
	if err != nil {
		return fmt.Errorf("usage store: %w", err)
	}
	a.onStop(func() { _ = store.Close() })
	if a.shared, err = a.newShared(p); err != nil {
		return err
	}
	if a.limits, err = newKeeper(ctx, a.dir, a.shared, a.reg, a.log); err != nil {
		return err
	}
	a.onStop(a.limits.closeStores)
	a.learned = newLessons(a.reg, a.log)
	var handOn func(usage.ID, func() ([]byte, error)) bool
	if a.shared != nil {
		handOn = func(id usage.ID, entry func() ([]byte, error)) bool { return a.shared.HandOn(id, entry) }
	}
	a.usage, err = usage.Open(usage.Options{
		Dir: filepath.Join(a.dir, "spool"), Store: store, Settler: a.limits,
		Deadline: p.Usage.SettleDeadline, Retention: p.Usage.Retention, OnEvent: onEvent,
		OnSettled: a.settled, OnPending: a.live.Pending, HandOn: handOn, Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("usage journal: %w", err)
	}
	a.onStop(func() {
		if err := a.usage.Close(); err != nil {
			a.log.Error("usage journal", "err", err)
		}
	})
	a.reg.MustRegister(a.usage)
	a.checks[string(RoleUsage)] = func() error {
		if lag := a.usage.StoreLag(); lag > maxStoreLag {
			return fmt.Errorf("the usage store takes no events: the oldest waits for %s", lag.Round(time.Second))
		}
		return nil
	}
	a.limits.usage = a.usage
	alerts := newAlerter(a.webhooks, a.reg, a.log)
	if a.shared != nil {
		a.shared.OnAlert = alerts.alert
	} else {
		a.limits.accounts[0].ledger.OnAlert = alerts.alert
	}
	a.checks["limits"] = a.limits.check.ready
	if err := a.limits.restore(ctx, p); err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	a.onStop(a.limits.close)
	a.background("limits", a.limits.run)
	a.background("alerts", alerts.run)
	a.background("usage", a.usage.Run)
	if a.shared != nil {
		a.runShared(a.shared)
	}
	return nil
}

// webhooks are where alerts go, as the plan in force says.
func (a *app) webhooks() []plan.Webhook {
	if p := a.plan.Load(); p != nil {
		return p.Webhooks
	}
	return nil
}

// settled learns from a request that has ended.
func (a *app) settled(e *usagev1.Event) {
	a.learned.settled(e)
	a.limits.learn(e)
	a.live.Ended(e)
	if a.controls != nil {
		a.controls.rollouts.Ended(e)
	}
	for _, at := range e.GetAttempts() {
		if rest := time.Duration(at.GetRestMs()) * time.Millisecond; rest > 0 {
			a.rests.Rest(at.GetPool(), e.GetEnd().AsTime().Add(rest))
			a.log.Info("a pool asked to be left alone", "pool", at.GetPool(), "for", rest)
		}
	}
}

// newExtProc makes the external processor; the plan must be applied before
// the first request comes.
func (a *app) newExtProc() *extproc.Server {
	memo := tokens.NewMemo()
	a.onStop(memo.Close)
	a.background("pools", live.NewScraper(a.live, a.log).Run)
	a.reg.MustRegister(poolMetrics{a})
	left := leftHere(a.limits.ledger)
	if a.shared != nil {
		there := newLeftThere(a.limits.ledger)
		a.background("what is left of limits", there.run)
		left = there.left
	}
	var share func(*plan.Model) float64
	if a.controls != nil {
		share = a.controls.rollouts.Share
		a.background("rollouts", a.controls.rollouts.Run)
	}
	pipe := newPipeline(a.limits.ledger, a.limits.outputs, a.rests, a.live, left, share, memo, a.learned.Learned, a.log)
	a.pipe = pipe
	a.checks[string(RoleExtProc)] = func() error {
		if a.draining.Load() {
			return errors.New("it is being stopped")
		}
		if a.plan.Load() == nil {
			return errors.New("no configuration is in force yet")
		}
		if a.shared != nil {
			return a.shared.Ready()
		}
		return nil
	}
	var newID func(time.Time) string // the default
	if a.shared != nil {
		newID = extproc.MarkedIDs(a.shared.Mark())
	}
	return extproc.NewServer(extproc.Options{
		Plan: a.plan.Load, Pipeline: pipe, Journal: a.usage, NewID: newID,
		Late:    func(d *usagev1.Decision) { a.limits.adopt(a.plan.Load().Limits, d) },
		Metrics: extproc.NewMetrics(a.reg, pipe.Stages()), Log: a.log,
	})
}

// bindGRPC binds unix:/path or host:port until stop, which ends the server by end.
// What it returns begins to serve: what comes before waits in the kernel.
func (a *app) bindGRPC(name, address string, s *grpc.Server, end func()) (serve func(), err error) {
	l, err := a.sockets.listen(name, address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	a.onStop(func() { end(); _ = l.Close() })
	return func() {
		go func() {
			if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				a.failed <- fmt.Errorf("%s: %w", name, err)
			}
		}()
	}, nil
}

// gracefully lets open streams end, but not for longer than the bound.
func gracefully(s *grpc.Server, bound time.Duration) {
	done := make(chan struct{})
	go func() { s.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-time.After(bound):
		s.Stop()
		<-done
	}
}

func listen(address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return net.Listen("tcp", address)
	}
	// The data directory's lock says that nobody else listens here.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// startAdmin serves the admin address. It listens at once, so that a taken port is
// known before anything else is started.
func (a *app) startAdmin(address string, extra map[string]http.HandlerFunc) error {
	l, err := a.sockets.listen("admin", address)
	if err != nil {
		return fmt.Errorf("admin address: %w", err)
	}
	a.admin = newAdmin(l, a.checks, a.apart, a.status, a.reg, extra)
	a.onStop(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		a.admin.stop(ctx)
	})
	go func() {
		if err := a.admin.serve(); err != nil {
			a.failed <- fmt.Errorf("admin address: %w", err)
		}
	}()
	return nil
}
