package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/extproc"
	"github.com/weirproxy/weir/internal/doctor"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/simulate"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage"
	"github.com/weirproxy/weir/wasm"
	"github.com/weirproxy/weir/xds"
	"github.com/weirproxy/weir/xds/build"
)

const (
	// readyTimeout bounds the start of Envoy; compiling the Wasm filter takes
	// seconds of CPU.
	readyTimeout = 2 * time.Minute
	// readyTimeoutOfPool is added for each pool: Envoy reads and hashes the Wasm filter
	// for each anew, 10 ms of its main thread, and may get a tenth of a core.
	readyTimeoutOfPool = 100 * time.Millisecond
	// waitNote is how often the log tells that Envoy is still waited for.
	waitNote = 30 * time.Second
	// drainTimeout bounds how long open streams are waited for at the end.
	drainTimeout = 10 * time.Minute
)

// Up runs Envoy and all of weir until ctx ends, then lets open streams finish.
func Up(ctx context.Context, o Options) error {
	o.Roles = allRoles
	binary, err := envoy.Locate(ctx, o.EnvoyPath)
	if err != nil {
		return err
	}
	a, p, err := newApp(o)
	if err != nil {
		return err
	}
	defer a.stop()
	if w := binary.Warning(); w != "" {
		a.log.Warn(w)
	}
	a.ownEnvoy = true
	u := &up{app: a, binary: binary}
	if err := u.start(ctx, p); err != nil {
		if ctx.Err() == nil {
			u.abandon()
			return err
		}
		// Asked to stop before it was ready. Only an Envoy of an earlier run can
		// have requests to wait for.
		if process := u.envoy.Load(); process != nil && process.Adopted {
			return u.drain()
		}
		u.abandon()
		return nil
	}
	return u.run(ctx)
}

// up is an app with an Envoy of its own.
type up struct {
	*app
	binary  envoy.Binary
	envoy   atomic.Pointer[envoy.Process]
	runtime string // directory of the sockets
	entries string // Envoy's access log
	// decide begins to serve ext_proc.
	decide func()
	// announced is when the banner was printed, in nanoseconds since the epoch.
	announced atomic.Int64
}

func (u *up) start(ctx context.Context, p *plan.Plan) error {
	if err := u.startSimulators(p); err != nil {
		return err
	}
	if err := u.startControl(ctx, p); err != nil {
		return err
	}
	if err := u.startUsage(ctx, p, u.lines()); err != nil {
		return err
	}
	if err := u.startServers(ctx); err != nil {
		return err
	}
	u.checks["envoy"], u.checks[policiesCheck] = u.envoyRuns, u.dog.check
	if err := u.startAdmin(p.Admin, map[string]http.HandlerFunc{"GET /envoy/stats": u.envoyStats}); err != nil {
		return err
	}
	// Published before Envoy starts, so that it finds all it needs at once.
	err := u.apply(ctx, p)
	u.started(p, err)
	if err != nil {
		return err
	}
	if err := u.serveControl(p); err != nil {
		return err
	}
	u.decide() // not before there is a configuration to decide by
	if err := u.startEnvoy(ctx, p); err != nil {
		return err
	}
	u.background("access log", func(ctx context.Context) error {
		return u.usage.TailFile(ctx, u.entries, u.reopen)
	})
	if err := u.waitReady(ctx); err != nil {
		return err
	}
	u.warm = u.waitWarm
	debug.FreeOSMemory() // the start needed several times what running needs
	u.background("configuration watch", u.watch)
	u.sockets.closeUntaken()
	u.startDoctor()
	if err := u.startOperator(u.runtime); err != nil {
		return err
	}
	return u.announce(p)
}

// envoyRuns is Envoy's readiness check.
func (u *up) envoyRuns() error {
	process := u.envoy.Load()
	if process == nil {
		return errors.New("envoy is not started yet")
	}
	select {
	case <-process.Done():
		return errors.New("envoy ended; it is started again")
	default:
		return nil
	}
}

// startSimulators starts the stand-in backends that the configuration asks for.
func (u *up) startSimulators(p *plan.Plan) error {
	for _, s := range p.Simulators {
		l, err := net.Listen("tcp", s.Address)
		if err != nil {
			return fmt.Errorf("simulator %q: %w", s.Name, err)
		}
		o := simulate.Options{Name: s.Name, Profile: s.Profile, BasePath: s.BasePath}
		if len(s.Models) > 0 {
			o.Model, o.Aliases = s.Models[0], s.Models[1:]
		}
		server := simulate.New(o)
		u.background("simulator "+s.Name, func(ctx context.Context) error { return server.Serve(ctx, l) })
	}
	return nil
}

// startServers serves ext_proc and xDS on sockets that only this user may open.
func (u *up) startServers(ctx context.Context) error {
	var err error
	if u.runtime, err = envoy.RuntimeDir(u.dir); err != nil {
		return err
	}
	filter, err := u.writeFilter()
	if err != nil {
		return err
	}
	u.entries = filepath.Join(u.dir, "access.log")
	decide, control := filepath.Join(u.runtime, "extproc.sock"), filepath.Join(u.runtime, "xds.sock")
	u.options = build.Options{
		ExtProc:         build.Service{Address: "unix:" + decide},
		AccessLogFile:   u.entries,
		WasmFile:        filter,
		WasmEnvironment: wasm.Environment(),
		SystemCAFile:    envoy.SystemCAFile(),
	}
	g := grpc.NewServer(extproc.ServerOptions()...)
	u.newExtProc().Register(g)
	if u.decide, err = u.bindGRPC("ext_proc", u.options.ExtProc.Address, g, func() { gracefully(g, stopBound) }); err != nil {
		return err
	}
	c := grpc.NewServer(xds.GRPCOptions()...)
	u.registerXDS(ctx, c)
	publish, err := u.bindGRPC("xds", "unix:"+control, c, c.Stop) // ADS streams have no end of their own
	if err != nil {
		return err
	}
	publish()
	return nil
}

// writeFilter puts the Wasm filter where Envoy reads it, under its digest: a
// new version is a new file, and what runs is never overwritten.
func (a *app) writeFilter() (string, error) {
	code, err := wasm.Adapter()
	if err != nil {
		return "", err
	}
	digest, err := wasm.Digest()
	if err != nil {
		return "", err
	}
	path := filepath.Join(a.dir, "adapter-"+digest[:16]+".wasm")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, code, 0o600); err != nil {
		return "", err
	}
	return path, os.Rename(tmp, path)
}

func (u *up) startEnvoy(ctx context.Context, p *plan.Plan) error {
	u.warnOfDescriptors(p)
	listen := make([]string, len(p.Listeners))
	for i, l := range p.Listeners {
		listen[i] = l.Address
	}
	process, err := envoy.Start(ctx, envoy.Options{
		Binary: u.binary, Dir: u.dir, RuntimeDir: u.runtime, Listen: listen,
		Bootstrap: envoy.BootstrapOptions{
			NodeID: ownNode, XDS: build.Service{Address: "unix:" + filepath.Join(u.runtime, "xds.sock")},
		},
		Concurrency: u.o.EnvoyConcurrency, Log: u.log,
	})
	if err != nil {
		return err
	}
	u.envoy.Store(process)
	if process.Adopted {
		u.log.Info("took over the Envoy that was running", "pid", process.PID())
	}
	return nil
}

func (u *up) reopen() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return u.envoy.Load().Admin.ReopenLogs(ctx)
}

// timeToReady is how long an Envoy with so many pools may take to be ready.
func timeToReady(pools int) time.Duration {
	return readyTimeout + time.Duration(pools)*readyTimeoutOfPool
}

// noteWait says from time to time that Envoy is not ready yet, until stop or ctx ends.
func (u *up) noteWait(ctx context.Context, bound time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	begun := time.Now()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(waitNote):
				u.log.Warn("envoy is not ready yet", "waited", time.Since(begun).Round(time.Second), "at most", bound, "pools", len(u.plan.Load().Pools))
			}
		}
	}()
	return cancel
}

// warnOfDescriptors says what would end Envoy later, by a segmentation fault: it takes a
// descriptor for the check of an endpoint and one for each connection to it.
func (u *up) warnOfDescriptors(p *plan.Plan) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return // nothing is known, so nothing is said
	}
	if want := descriptors(p); want > limit.Max {
		u.log.Warn("the hard limit on open files is too low for Envoy with so many endpoints", "limit", limit.Max, "wanted", want)
	}
}

// descriptors are the files that Envoy may have open at a time, at least.
func descriptors(p *plan.Plan) uint64 {
	n := uint64(1024) // clients, logs, what it has of its own
	for _, pool := range p.Pools {
		n += 2 * uint64(len(pool.Endpoints))
	}
	return n
}

// waitReady waits until Envoy serves and has everything, and until the doctor has
// proved on each listener that the policies are live.
func (u *up) waitReady(ctx context.Context) error {
	bound := timeToReady(len(u.plan.Load().Pools))
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	defer u.noteWait(ctx, bound)()
	ctx, refused := context.WithCancelCause(ctx)
	defer refused(nil)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		// An Envoy that refuses what it is told is never ready: say so at once.
		if err := u.xds.WaitACK(ctx, u.xds.Status().Version); err != nil {
			refused(err)
		}
	}()
	process := u.envoy.Load()
	if err := process.Ready(ctx); err != nil {
		return causeOf(ctx, err)
	}
	<-accepted
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for {
		warm, err := process.Admin.Warm(ctx)
		if err == nil && warm {
			if err = u.proved(ctx); err == nil {
				return nil
			}
		}
		select {
		case <-process.Done():
			return process.Err()
		case <-ctx.Done():
			return fmt.Errorf("envoy is not ready: %w", errors.Join(err, context.Cause(ctx)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// proved tells whether every listener of our own enforces what it has to. Only what
// weir signs proves that: it has passed the listener, the route and ext_proc.
func (u *up) proved(ctx context.Context) error {
	p := u.plan.Load() // it may have been replaced since Envoy was started
	targets, err := ownTargets(p)
	if err != nil {
		return err
	}
	decided := 0
	for _, f := range examineAll(ctx, p, targets) {
		switch {
		case f.Policy == doctor.Decisions && (f.State == doctor.InForce || f.Closed):
			decided++
		case f.Wrong(), f.Policy == doctor.Decisions:
			return fmt.Errorf("listener %q: %s: %s", f.Listener, f.Policy, f.Evidence)
		}
	}
	if decided != len(p.Listeners) {
		return fmt.Errorf("%d of %d listeners ask weir or turn away who shows no certificate", decided, len(p.Listeners))
	}
	return nil
}

// causeOf is why the context ended, if it did, and err otherwise.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// warmTimeout bounds how long a change waits for new clusters to be usable: one
// whose name does not resolve must not keep the others back.
const warmTimeout = 5 * time.Second

// waitWarm waits until no cluster waits for anything: Envoy accepts a cluster
// before it can route to it, and a request that came between would fail.
func (u *up) waitWarm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	for {
		if warm, err := u.envoy.Load().Admin.Warm(ctx); err == nil && warm {
			return
		}
		select {
		case <-ctx.Done():
			u.log.Warn("a cluster is not ready yet; the configuration is in force all the same", "waited", warmTimeout)
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// announce tells the world: one line of JSON on stdout, and on stderr what a
// person would want to paste.
func (u *up) announce(p *plan.Plan) error {
	base := baseURL(p)
	line, err := json.Marshal(struct {
		Ready    bool   `json:"ready"`
		BaseURL  string `json:"base_url"`
		AdminURL string `json:"admin_url"`
	}{true, base, u.admin.url()})
	if err != nil {
		return err
	}
	if u.o.RequestLines {
		banner(u.o.Stderr, p, base)
		u.announced.Store(time.Now().UnixNano())
	}
	_, err = fmt.Fprintf(u.o.Stdout, "%s\n", line)
	return err
}

// lines prints a line for each request, if it is wanted.
func (u *up) lines() func(*usagev1.Event) {
	if !u.o.RequestLines {
		return nil
	}
	return func(e *usagev1.Event) {
		// What was decided before is of an earlier run.
		if ready := u.announced.Load(); ready != 0 && e.GetDecision().GetTime().AsTime().UnixNano() >= ready {
			fmt.Fprintln(u.o.Stderr, usage.Line(e))
		}
	}
}

// run waits for the end: asked for, or of a part without which nothing works.
func (u *up) run(ctx context.Context) error {
	for {
		process := u.envoy.Load()
		select {
		case <-ctx.Done():
			return u.drain()
		case err := <-u.failed:
			return errors.Join(err, u.drain())
		case <-u.o.Upgrade:
			stopped, err := u.upgrade(ctx)
			switch {
			case stopped && err == nil:
				return u.drain()
			case stopped:
				return err // Envoy is left to the weir that is started next
			}
			u.log.Error("not upgraded; what runs goes on", "err", err)
		case <-process.Done():
			u.log.Error("envoy ended; it is started again", "err", process.Err())
			u.usage.Lost(time.Now())
			u.reviveEnvoy(ctx)
		}
	}
}

// reviveEnvoy starts Envoy until one serves or ctx ends, with longer and longer
// pauses, so that one that dies at once does not take the machine with it.
func (u *up) reviveEnvoy(ctx context.Context) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		err := u.startEnvoy(ctx, u.plan.Load())
		if err == nil {
			if err = u.waitReady(ctx); err == nil {
				u.log.Info("envoy serves again")
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		u.log.Error("envoy does not start; it is tried again", "err", err)
		u.abandon()
	}
}

// abandon ends an Envoy that does not serve: left alone it would keep the ports.
func (u *up) abandon() {
	if process := u.envoy.Load(); process != nil {
		process.Kill()
	}
}

// drain closes the listeners, lets open requests finish while weir still
// settles them, and ends Envoy.
func (u *up) drain() error {
	process := u.envoy.Load()
	u.log.Info("draining: no new connections, open requests finish", "at most", drainTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	go func() {
		select {
		case <-u.o.Hurry:
			u.log.Warn("asked again: open requests are cut")
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := process.Stop(ctx); err != nil {
		return err
	}
	u.log.Info("drained")
	return nil
}

// envoyStats passes Envoy's statistics on; the query's filter is a regular expression.
func (u *up) envoyStats(w http.ResponseWriter, r *http.Request) {
	stats, err := u.envoy.Load().Admin.Stats(r.Context(), r.URL.Query().Get("filter"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	var b strings.Builder
	for name, value := range stats {
		fmt.Fprintf(&b, "%s: %d\n", name, value)
	}
	w.Header().Set("content-type", "text/plain")
	_, _ = w.Write([]byte(b.String()))
}
