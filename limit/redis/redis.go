// Package redis is the ledger of several replicas: its counts are in Redis or Valkey,
// where one script admits a request under all limits or under none, and one
// settles it. It decides as limit.Ledger does.
//
// What is promised is what package limit promises, over all replicas together, as
// long as the server's clock is right. Three things are done for that.
//
// Each replica keeps an account of its own part, in process and restored from its
// journal, so that what the server lost can be put together again: see keeper.go.
// Until it is, nothing is reserved: a server that forgot must not be a way past
// every limit.
//
// A reservation of which nobody knows whether the server took it is given up by its
// id, and cannot be taken later either. One whose replica is gone is settled at
// what it holds when its time is over.
//
// While the server is away a replica refuses, or admits from a pot of its own: a
// part of each limit that was taken out of what the server gives, so that both
// together are never more than the limit.
package redis

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// Server says where Redis is.
type Server struct {
	Addresses []string // host:port, or unix:/path
	// SentinelMaster is the name of the master that the addresses, which are
	// sentinels, know.
	SentinelMaster string
	Cluster        bool // the addresses are nodes of a cluster
	Username       string
	Password       string
	TLS            *tls.Config // nil: in the clear
}

// Options are what a Ledger is made of.
type Options struct {
	Server   Server
	Name     string // of the deployment: all its replicas have the same
	Replica  string // the replica's, unique in the deployment and the same after a restart
	Replicas int    // how many there are
	// Allowance is the part of each limit, in per cent, from which all replicas
	// together admit while the server is away; 0 refuses then.
	Allowance int
	// Timeout bounds how long a decision waits; default 250 ms.
	Timeout time.Duration
	// Hold is how long a reservation is held whose replica is gone. It must be
	// longer than any request; default 30 min.
	Hold time.Duration
	// Lookup finds a request that has ended: what limits it was judged by, and what it
	// used. It is asked about reservations that an earlier process of this replica
	// left open; may be nil.
	Lookup func(id string) (limits []*plan.Limit, r limit.Request, used []limit.Used, ok bool)
	Now    func() time.Time // default: time.Now
	Logger *slog.Logger     // default: slog.Default()

	clock    string // in tests: the key with the server's time and name
	maxUsers int    // in tests; limit.MaxUsers
}

// Limits of what an operator may ask for.
const (
	MaxReplicas  = 1000
	MaxAllowance = 50
)

func (o *Options) fill() {
	if o.Timeout <= 0 {
		o.Timeout = 250 * time.Millisecond
	}
	if o.Hold <= 0 {
		o.Hold = 30 * time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.maxUsers == 0 {
		o.maxUsers = limit.MaxUsers
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Mark is how ids tell the replica that decided: the last bytes of each id.
type Mark [4]byte

// MarkOf is the mark of a replica.
func MarkOf(replica string) Mark {
	sum := sha256.Sum256([]byte("weir replica\x00" + replica))
	return Mark(sum[:4])
}

func (m Mark) String() string { return hex.EncodeToString(m[:]) }

// Ledger counts in Redis. It is safe for concurrent use. It refuses until Run has
// brought the replica into the deployment.
type Ledger struct {
	opt     Options
	mark    Mark
	boot    string // of this process
	meta    string // the key that names all others
	metrics *metrics
	// OnAlert is called for each alert, by the replica whose request passed the
	// percentage. Set it before the first use.
	OnAlert func(limit.Alert)

	client  atomic.Pointer[rueidis.Client]
	view    atomic.Pointer[view]
	phase   atomic.Pointer[phase]
	anchor  atomic.Pointer[anchor]
	last    atomic.Int64 // the latest time that the server told, in µs since 1970
	members atomic.Pointer[map[Mark]string]
	onShut  atomic.Pointer[func(bool)]
	wake    chan struct{} // the keeper has something to do
	flush   chan struct{} // the queue has

	// asking is held for reading while a reservation is asked for and noted, so that
	// who says what the replica knows does not miss one that was just taken.
	asking sync.RWMutex

	mu      sync.Mutex
	own     *limit.Ledger // this replica's part of what the server counts
	pot     *limit.Ledger // what it admitted while the server was away
	open    map[string]*reservation
	ended   map[string][]string // of requests that ended before this process began: what was used
	queue   []operation
	unsaid  map[string]bool // limits that are new, of which the server is to be told
	said    int
	stood   bool // once a member, the replica may use its pot
	splits  sync.Map
	known   sync.Map     // limits by name
	tight   sync.Map     // counts that refused lately: until when
	isTight atomic.Int64 // how many

	outbox outbox
}

// view is what the replica knows of the generation of the server's counts.
type view struct {
	gen          string
	acknowledged atomic.Int64
}

// reservation is one that the server holds for this replica.
type reservation struct {
	holds []hold
	due   time.Time // when it ends if the replica is gone, by this machine's clock
}

// hold is what a reservation holds of one count.
type hold struct {
	id    string
	limit *plan.Limit // as it was configured
	share *plan.Limit // with the amount that the server gives
	pool  string
	n     int64
	at    time.Time // since when, by this machine's clock
}

// operation is something of which the server is told soon. Telling it twice has no
// effect.
type operation struct {
	id, how string
	rest    []string // pairs of a count's id and what was used of it; records
}

// The ways to end a reservation, and another thing to tell.
const (
	settle  = "settle"
	release = "release"
	void    = "void"
	also    = "also"
)

// New makes a ledger that has asked nobody yet.
func New(o Options) *Ledger {
	o.fill()
	var boot [8]byte
	rand.Read(boot[:]) // never fails: see crypto/rand
	l := &Ledger{
		opt: o, mark: MarkOf(o.Replica), boot: hex.EncodeToString(boot[:]),
		meta: "{" + o.Name + "}:meta", wake: make(chan struct{}, 1), flush: make(chan struct{}, 1),
		open: map[string]*reservation{}, ended: map[string][]string{}, unsaid: map[string]bool{},
	}
	now := o.Now()
	l.anchor.Store(&anchor{server: now.Round(0), here: now})
	l.own, l.pot = limit.NewPart(o.Now, l.time), limit.New(o.Now)
	l.outbox.filled = make(chan struct{}, 1)
	l.view.Store(&view{})
	l.members.Store(&map[Mark]string{})
	l.phase.Store(&phase{state: starting, why: "the limit store was not reached yet"})
	l.metrics = newMetrics(l)
	return l
}

// Mark is the replica's.
func (l *Ledger) Mark() Mark { return l.mark }

// Own is the replica's part of what the server counts, and Pot what it admitted
// while the server was away. Both are to be saved and loaded as a ledger in
// process is, each apart from the other.
func (l *Ledger) Own() *limit.Ledger { return l.own }

// Pot is described at Own.
func (l *Ledger) Pot() *limit.Ledger { return l.pot }

// anchor ties the server's clock to the time that passes here, so that a clock that
// is set on this machine has no effect.
type anchor struct {
	server time.Time // without a monotonic reading
	here   time.Time
}

// time is the server's, as far as it is known; this machine's before it answered.
func (l *Ledger) time() time.Time {
	a := l.anchor.Load()
	return a.server.Add(l.opt.Now().Sub(a.here))
}

// timeDrift is by how much the server's clock may seem to differ: what answers take.
const timeDrift = 2 * time.Millisecond

// noteTime takes in what time the server has.
func (l *Ledger) noteTime(us int64) {
	now, server := l.opt.Now(), time.UnixMicro(us)
	a := l.anchor.Load()
	if a.server.Add(now.Sub(a.here)).Sub(server).Abs() > timeDrift {
		l.anchor.Store(&anchor{server: server, here: now})
	}
}

// dial connects. It fails while the server cannot be reached.
func (l *Ledger) dial() error {
	c, err := Connect(&l.opt.Server, l.opt.Timeout)
	if err != nil {
		return err
	}
	l.client.Store(&c)
	return nil
}

// Connect connects to a server, of which answers are expected within the timeout.
func Connect(s *Server, timeout time.Duration) (rueidis.Client, error) {
	o := rueidis.ClientOption{
		InitAddress: s.Addresses, Username: s.Username, Password: s.Password, ClientName: "weir",
		TLSConfig: s.TLS, DisableCache: true, DisableRetry: true, AlwaysPipelining: true,
		// One connection, so that what is given up does not come before what it gives up.
		PipelineMultiplex: -1, ForceSingleClient: !s.Cluster && s.SentinelMaster == "",
		ConnWriteTimeout: max(2*time.Second, 4*timeout), Dialer: net.Dialer{Timeout: max(time.Second, timeout)},
		DialCtxFn: dialContext,
	}
	if s.SentinelMaster != "" {
		o.Sentinel = rueidis.SentinelOption{
			MasterSet: s.SentinelMaster, Username: s.Username, Password: s.Password, TLSConfig: s.TLS,
			ClientName: "weir", Dialer: o.Dialer, TopologyRefreshInterval: 5 * time.Second,
		}
	}
	return rueidis.NewClient(o)
}

func dialContext(ctx context.Context, address string, d *net.Dialer, c *tls.Config) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	if c == nil {
		return d.DialContext(ctx, network, address)
	}
	if c.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		c = c.Clone()
		c.ServerName = host
	}
	return (&tls.Dialer{NetDialer: d, Config: c}).DialContext(ctx, network, address)
}

var errAway = errors.New("the limit store cannot be reached")

// CheckServer tells why the server's settings let it lose what it holds without a
// trace.
func CheckServer(ctx context.Context, c rueidis.Client) error {
	info, err := c.Do(ctx, c.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return err
	}
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[k] = v
		}
	}
	if policy := fields["maxmemory_policy"]; fields["maxmemory"] != "0" && policy != "" && policy != "noeviction" {
		return fmt.Errorf("it may drop what it holds when its memory is full: maxmemory-policy is %s, set it to noeviction", policy)
	}
	return nil
}
