package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options is how to run an Envoy on this machine.
type Options struct {
	Binary Binary
	// Dir holds the bootstrap, Envoy's own log and the record of what runs.
	Dir string
	// RuntimeDir holds the admin socket: see RuntimeDir.
	RuntimeDir string
	// Bootstrap joins the Envoy to weir. Its Admin is set by Start.
	Bootstrap BootstrapOptions
	// Listen is where the Envoy will accept clients (host:port). Start fails when
	// a stranger has one of them: Envoy's listeners share ports silently.
	Listen []string
	// Concurrency is the number of worker threads. Default: one a core.
	Concurrency int
	// LogLevel is Envoy's: trace to critical. Default: warning
	LogLevel string
	// DrainTime bounds how long an Envoy that is replaced keeps its open streams.
	// Default: 10 minutes
	DrainTime time.Duration
	Log       *slog.Logger
}

// Process is a running Envoy. It outlives weir when weir is killed: streams
// finish, new requests get 503, and the next Start with the same directories
// takes it over.
type Process struct {
	// Admin is its admin interface.
	Admin *Admin
	// AdminAddress is where that is, unix:/path.
	AdminAddress string
	// Adopted tells that an earlier weir started it.
	Adopted bool

	record record
	opts   Options
	done   chan struct{}
	err    error // why it ended; set before done is closed

	retireOnce sync.Once
	old        []*Process // to be retired once this one serves
	retired    sync.WaitGroup
}

const (
	logFlush     = 100 * time.Millisecond // of access logs to the file that weir tails
	pollInterval = 50 * time.Millisecond
	quitTime     = 5 * time.Second
)

// Start takes over the Envoy that an earlier weir left running if it was started
// in the same way, or else starts one; what was started differently is drained
// and ended as soon as the new one serves. It returns before Envoy serves: see
// Ready.
func Start(ctx context.Context, o Options) (*Process, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.DrainTime <= 0 {
		o.DrainTime = 10 * time.Minute
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	identity, err := o.identity()
	if err != nil {
		return nil, err
	}
	left := leftovers(o.Dir)
	var same *record
	var others []record
	for i := range left {
		if same == nil && left[i].Identity == identity {
			same = &left[i]
		} else {
			others = append(others, left[i])
		}
	}
	var p *Process
	if same != nil {
		o.Log.Info("taking over the Envoy that is running", "pid", same.PID)
		p = adopt(*same, o)
	} else if p, err = launch(ctx, o, identity, others); err != nil {
		return nil, err
	}
	for _, r := range others {
		p.old = append(p.old, adopt(r, o))
	}
	if err := saveRecords(o.Dir, append(others, p.record)); err != nil {
		if !p.Adopted {
			p.Kill()
		}
		return nil, err
	}
	return p, nil
}

func launch(ctx context.Context, o Options, identity string, others []record) (*Process, error) {
	if len(others) == 0 {
		if err := checkFree(ctx, o.Listen); err != nil {
			return nil, err
		}
	}
	admin := filepath.Join(o.RuntimeDir, freeAdminSocket(others))
	if err := checkSocketPath(admin); err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	o.Bootstrap.Admin = "unix:" + admin
	bootstrap, err := Bootstrap(o.Bootstrap)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(o.Dir, "bootstrap.json")
	if err := os.WriteFile(config, bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	// It outlives the context: what ends it is Stop.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), o.Binary.Path, append([]string{"-c", config, "--log-path", o.logPath()}, o.flags()...)...)
	cmd.Env = environment()
	// A group of its own: an interrupt from the terminal is weir's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := os.OpenFile(o.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("envoy: %w", err)
	}
	p := &Process{
		Admin: NewAdmin(o.Bootstrap.Admin), AdminAddress: o.Bootstrap.Admin, opts: o, done: make(chan struct{}),
		record: record{
			PID: cmd.Process.Pid, Started: startTicks(cmd.Process.Pid), Admin: o.Bootstrap.Admin, Identity: identity,
		},
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func adopt(r record, o Options) *Process {
	p := &Process{
		Admin: NewAdmin(r.Admin), AdminAddress: r.Admin, Adopted: true,
		record: r, opts: o, done: make(chan struct{}),
	}
	go func() { // not our child: it cannot be waited for
		for r.alive() {
			time.Sleep(4 * pollInterval)
		}
		p.err = errors.New("ended")
		close(p.done)
	}()
	return p
}

// flags are all but the paths: they belong to the identity.
func (o *Options) flags() []string {
	level := o.LogLevel
	if level == "" {
		level = "warning"
	}
	flags := []string{
		"--disable-hot-restart", // no shared memory: any number side by side
		"--file-flush-interval-msec", strconv.FormatInt(logFlush.Milliseconds(), 10),
		"--drain-time-s", "5",
		"--log-level", level,
	}
	if o.Concurrency > 0 {
		flags = append(flags, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	return flags
}

func (o *Options) logPath() string { return filepath.Join(o.Dir, "envoy.log") }

// environment is weir's without anything that could be a secret.
func environment() []string {
	var env []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// checkFree fails when somebody listens on one of the addresses.
func checkFree(ctx context.Context, addresses []string) error {
	var lc net.ListenConfig
	for _, a := range addresses {
		l, err := lc.Listen(ctx, "tcp", a)
		if err != nil {
			return fmt.Errorf("envoy: listen address %s: %w", a, err)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("envoy: listen address %s: %w", a, err)
		}
	}
	return nil
}

// PID is the process id.
func (p *Process) PID() int { return p.record.PID }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says why it ended, with the end of its log; nil while it runs.
func (p *Process) Err() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	why := "exited"
	if p.err != nil {
		why = p.err.Error()
	}
	if tail := logTail(p.opts.logPath()); tail != "" {
		return fmt.Errorf("envoy: %s; its log ends: %s", why, tail)
	}
	return fmt.Errorf("envoy: %s", why)
}

// Ready waits until Envoy serves; then the Envoys that this one replaces are
// drained in the background.
func (p *Process) Ready(ctx context.Context) error {
	for {
		err := p.Admin.Ready(ctx)
		if err == nil {
			p.retireOnce.Do(p.retireOld)
			return nil
		}
		select {
		case <-p.done:
			return p.Err()
		case <-ctx.Done():
			return fmt.Errorf("envoy: not ready: %w (%w)", ctx.Err(), err)
		case <-time.After(pollInterval):
		}
	}
}

func (p *Process) retireOld() {
	for _, old := range p.old {
		p.retired.Go(func() {
			p.opts.Log.Info("draining the Envoy that was replaced", "pid", old.PID())
			ctx, cancel := context.WithTimeout(context.Background(), p.opts.DrainTime)
			defer cancel()
			if err := old.Stop(ctx); err != nil {
				p.opts.Log.Warn("the Envoy that was replaced", "err", err)
			}
		})
	}
}

// Stop ends Envoy: no new connections, open requests finish until ctx ends, then
// it quits. The error tells how many requests were cut.
func (p *Process) Stop(ctx context.Context) error {
	cut, err := p.drain(ctx)
	quit, cancel := context.WithTimeout(context.WithoutCancel(ctx), quitTime)
	defer cancel()
	if p.Admin.quit(quit) != nil {
		p.signal(syscall.SIGTERM)
	}
	select {
	case <-p.done:
	case <-quit.Done():
		p.Kill()
	}
	for _, old := range p.old {
		old.Kill()
	}
	p.retired.Wait()
	dropRecord(p.opts.Dir, p.record)
	if err != nil {
		return err
	}
	if cut > 0 {
		return fmt.Errorf("envoy: %d requests were cut: the time to drain was over", cut)
	}
	return nil
}

// drain returns how many requests are still open when ctx ends.
func (p *Process) drain(ctx context.Context) (int64, error) {
	select {
	case <-p.done:
		return 0, nil
	default:
	}
	if err := p.Admin.stopListening(ctx); err != nil {
		return 0, fmt.Errorf("envoy: drain: %w", err)
	}
	var active int64
	for {
		n, err := p.Admin.ActiveRequests(ctx)
		if err == nil {
			if active = n; n == 0 {
				return 0, nil
			}
		}
		select {
		case <-p.done:
			return active, nil
		case <-ctx.Done():
			return active, nil
		case <-time.After(pollInterval):
		}
	}
}

// Kill ends Envoy at once, open streams too.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *Process) signal(s syscall.Signal) {
	if p.record.alive() { // the id could be another process's by now
		_ = syscall.Kill(p.record.PID, s) // it may have ended since
	}
}

// logTail is the last line of Envoy's log, at most 1 KiB of it.
func logTail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 1024
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return strings.ToValidUTF8(string(lines[len(lines)-1]), "?")
}
