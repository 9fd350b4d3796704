package redis

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

// The simulation plays what can happen to three replicas and their server, step by
// step, and compares each step with a slow account of what requests truly use.
// What happens is drawn from the seed alone. The server is real; its clock, its
// losses, and what becomes of each script on its way are the simulation's.
//
// -long plays more of it: go test ./limit/redis -run Simulation -long
var long = flag.Bool("long", false, "simulate for minutes")

const (
	simReplicas = 3
	simHold     = time.Minute
)

// life is one request as it truly is.
type life struct {
	r        *limit.Request
	limits   []*plan.Limit
	replica  int
	option   int
	admitted time.Duration
	ended    time.Duration
	day      time.Time // when it ended by the server's clock
	noted    time.Time // when it was admitted, by the replica's clock
	left     time.Time // when it ended, by the replica's clock
	pot      bool      // it was admitted from the pot
	over     bool      // it truly has ended
	entered  bool      // its entry was taken
	used     []limit.Used
}

// player is a ledger as the simulation plays it.
type player interface {
	Reserve(limits []*plan.Limit, r *limit.Request) limit.Result
	Settle(id string, used []limit.Used)
	Release(id string)
	Restore(limits []*plan.Limit, r *limit.Request, admitted time.Time)
	Held() int
	Mark() Mark
	Ready() error

	step()                                                      // does what a process does by itself
	count(l *life, r *limit.Request, admitted, ended time.Time) // after a start
	all(limits []*plan.Limit) []limit.State
	holds(id string) bool // knows of a reservation
	untold() int          // what the server is to be told
	started() bool        // again, and has a place
}

func (m *manual) holds(id string) bool { return m.own.Holds(id) || m.pot.Holds(id) }
func (m *manual) all(limits []*plan.Limit) []limit.State {
	list, _ := m.All(context.Background(), limits)
	return list
}

func (m *manual) untold() int   { return len(m.queue) }
func (m *manual) started() bool { return m.k.tries == 0 }

func (m *manual) count(l *life, r *limit.Request, admitted, ended time.Time) {
	if l.pot {
		m.pot.Count(m.Pots(l.limits), r, l.used, admitted, ended)
		return
	}
	m.Count(l.limits, r, l.used, admitted, ended)
}

// inProcess is the ledger of one process.
type inProcess struct{ *limit.Ledger }

func (inProcess) Mark() Mark                               { return Mark{} }
func (inProcess) Ready() error                             { return nil }
func (inProcess) step()                                    {}
func (l inProcess) holds(id string) bool                   { return l.Holds(id) }
func (l inProcess) all(limits []*plan.Limit) []limit.State { return l.All(limits) }
func (inProcess) untold() int                              { return 0 }
func (inProcess) started() bool                            { return false }
func (l inProcess) count(f *life, r *limit.Request, admitted, ended time.Time) {
	l.Count(f.limits, r, f.used, admitted, ended)
}

// fate is what becomes of a script on its way.
type fate int

const (
	arrives      fate = iota
	never             // it does not get there
	unanswered        // it runs, and nobody hears of it
	late              // it runs, after its time has run out
	frozen            // neither it nor any other is answered, until the replica is let go
	numberOfFate = iota
)

// wire is the way to the server.
type wire struct {
	rueidis.Client
	s       *sim
	replica int
}

func (w *wire) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	failed := rueidis.NewErrorResult(context.DeadlineExceeded)
	w.s.tick()
	switch w.s.fate(w.replica) {
	case never, frozen:
		return failed
	case unanswered:
		w.Client.Do(ctx, cmd)
		return failed
	case late:
		w.s.late = append(w.s.late, delayed{w.Client, cmd.Pin()})
		return failed
	}
	return w.Client.Do(ctx, cmd)
}

func (w *wire) DoMulti(ctx context.Context, list ...rueidis.Completed) []rueidis.RedisResult {
	out := make([]rueidis.RedisResult, len(list))
	for i, cmd := range list {
		out[i] = w.Do(ctx, cmd)
	}
	return out
}

func (w *wire) Close() {}

type delayed struct {
	client rueidis.Client
	cmd    rueidis.Completed
}

type sim struct {
	*world
	t        *testing.T
	rng      *rand.Rand
	limits   []*plan.Limit
	allow    int
	client   rueidis.Client
	n        int // replicas; 0 is one ledger in process
	ledgers  []player
	clocks   []func() time.Time // of the replicas
	boots    int
	fates    []fate
	lives    []*life
	late     []delayed
	snapshot map[string]string
	back     time.Duration // by which the server's clock was set back
	happened map[string]int
	latest   time.Time
	told     string // what time it is
}

// fate draws what becomes of one script of a replica.
func (s *sim) fate(replica int) fate {
	switch f := s.fates[replica]; f {
	case arrives, frozen:
		return f
	default:
		if s.rng.IntN(3) > 0 {
			return arrives
		}
		return f
	}
}

// server is the server's time: it never goes back.
func (s *sim) server() time.Time {
	if t := s.time().Add(-s.back); t.After(s.latest) {
		s.latest = t
	}
	return s.latest
}

// tick tells the server what time it is.
func (s *sim) tick() {
	if s.client == nil {
		return
	}
	if now := fmt.Sprintf("%d %s", s.time().Add(-s.back).UnixMicro(), s.run); now != s.told {
		s.told = now
		s.set(s.client, now)
	}
}

func simLimits() []*plan.Limit {
	return []*plan.Limit{
		{Name: "requests", Unit: plan.UnitRequests, Amount: 12, Window: 6 * time.Second, PerTeam: true},
		{Name: "tokens", Unit: plan.UnitTokens, Amount: 2000, Window: 12 * time.Second},
		{Name: "running", Unit: plan.UnitConcurrency, Amount: 12},
		{Name: "day", Unit: plan.UnitOutputTokens, Amount: 30_000, Period: plan.Day, Zone: berlin, PerTeam: true, Breaker: true},
	}
}

func TestSimulation(t *testing.T) {
	t.Parallel()
	for i, name := range redistest.Available(t) {
		for _, allowance := range []int{0, 30} {
			t.Run(fmt.Sprint(name, "-allowance-", allowance), func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t, name)
				client := (&world{server: server}).dial(t)
				seeds, steps := 8, 3000
				if *long {
					seeds, steps = 60, 6000
				}
				happened := map[string]int{}
				for seed := range seeds {
					s := &sim{
						world: newWorld(server), t: t, rng: rand.New(rand.NewPCG(uint64(seed), uint64(i*100+allowance))),
						limits: simLimits(), allow: allowance, client: client, happened: happened, n: simReplicas,
					}
					s.play(steps)
				}
				t.Logf("%v", happened)
				must := []string{
					"admitted", "refused", "unavailable", "released", "crash", "entry again", "entry after a crash", "doubtful",
					"emptied", "promoted", "restarted", "set back", "late", "long silence", "rebuilt",
				}
				if allowance > 0 {
					must = append(must, "from the pot")
				}
				for _, what := range must {
					if happened[what] < 3 {
						t.Errorf("%s happened %d times: the test does not test much", what, happened[what])
					}
				}
			})
		}
	}
}

// The same driver plays the ledger of one process: crashes, clocks, entries.
func TestSimulationInProcess(t *testing.T) {
	t.Parallel()
	seeds := 4
	if *long {
		seeds = 100
	}
	happened := map[string]int{}
	for seed := range seeds {
		s := &sim{world: &world{run: "none"}, t: t, rng: rand.New(rand.NewPCG(uint64(seed), 77)), limits: simLimits(), happened: happened}
		s.play(6000)
	}
	t.Logf("%v", happened)
	for _, what := range []string{"admitted", "refused", "released", "crash", "entry again", "set back", "long silence"} {
		if happened[what] < 3 {
			t.Errorf("%s happened %d times: the test does not test much", what, happened[what])
		}
	}
}

func (s *sim) play(steps int) {
	n := max(s.n, 1)
	s.ledgers, s.fates, s.clocks = make([]player, n), make([]fate, n), make([]func() time.Time, n)
	for i := range s.ledgers {
		s.start(i)
	}
	s.settleDown()
	for step := range steps {
		s.step()
		s.check(step)
		if s.t.Failed() {
			return
		}
	}
	s.finish()
}

// start starts a replica from its journal. Their clocks differ.
func (s *sim) start(i int) {
	clock := func() time.Time { return s.time().Add(time.Duration(i-1) * 700 * time.Millisecond) }
	var p player
	if s.n == 0 {
		clock = func() time.Time { return s.time().Add(-s.back) }
		p = inProcess{limit.New(clock)}
	} else {
		o := s.replica(fmt.Sprint("replica-", i), s.n)
		o.Hold, o.Allowance, o.clock, o.Timeout, o.Now = simHold, s.allow, s.clockKey(), 5*time.Second, clock
		m := newManual(s.t, o)
		var c rueidis.Client = &wire{Client: s.client, s: s, replica: i}
		m.client.Store(&c)
		m.k.checked = true
		p = m
	}
	for _, l := range s.lives {
		if l.replica != i {
			continue
		}
		admitted := *l.r
		admitted.Options = l.r.Options[l.option : l.option+1]
		if l.entered {
			p.count(l, &admitted, l.noted, l.left)
		} else {
			p.Restore(l.limits, &admitted, l.noted)
		}
	}
	s.ledgers[i], s.clocks[i] = p, clock
}

// settleDown lets everything arrive, until all replicas are open.
func (s *sim) settleDown() {
	clear(s.fates)
	for i := range s.ledgers {
		if s.ledgers[i] == nil {
			s.start(i)
		}
	}
	for range 20 {
		ready := 0
		for _, m := range s.ledgers {
			if m.step(); m.Ready() == nil {
				ready++
			}
		}
		if ready == len(s.ledgers) {
			return
		}
	}
	for _, m := range s.ledgers {
		s.t.Logf("%v", m.Ready())
	}
	s.t.Fatal("the replicas do not come together")
}

func (s *sim) step() {
	i := s.rng.IntN(len(s.ledgers))
	switch n := s.rng.IntN(1000); {
	case n < 250:
		s.now += time.Duration(s.rng.ExpFloat64() * float64(150*time.Millisecond)).Truncate(time.Microsecond)
	case n < 500:
		s.admit(i)
	case n < 680:
		s.end()
	case n < 840:
		s.enter()
	case n < 940:
		if m := s.ledgers[i]; m != nil {
			s.do(m)
		}
	case n < 950:
		s.crash(i)
	case n < 970:
		if s.ledgers[i] == nil {
			s.start(i)
		}
	case n < 980:
		s.fates[i] = fate(s.rng.IntN(int(numberOfFate)))
	case n < 986:
		s.deliverLate()
	case n < 988:
		s.settleDown()
	default:
		s.misfortune()
	}
}

func (s *sim) do(m player) {
	before := m.Ready() == nil
	m.step()
	if m.Ready() == nil && !before {
		s.happened["rebuilt"]++
	}
}

// misfortune happens to the server.
func (s *sim) misfortune() {
	n := s.rng.IntN(7)
	if s.n == 0 {
		n = 5 + n%2 // there is none: clocks and silence only
	}
	switch n {
	case 0:
		s.wipe()
		s.happened["emptied"]++
	case 1, 2:
		s.snapshot = s.dump()
	case 3:
		if s.snapshot != nil {
			s.wipe()
			s.load(s.snapshot)
			s.rename()
			s.happened["promoted"]++
		}
	case 4:
		s.rename()
		s.happened["restarted"]++
	case 5:
		s.back += time.Duration(s.rng.IntN(30)) * time.Second
		s.happened["set back"]++
	case 6:
		for _, l := range s.lives { // no request outlasts the time that reservations have
			if !l.over {
				s.endOne(l)
			}
		}
		s.now += simHold + time.Duration(s.rng.IntN(12))*time.Hour/4
		s.happened["long silence"]++
	}
}

// rename lets another server answer, with the same counts.
func (s *sim) rename() {
	s.boots++
	s.run = fmt.Sprint("server-", s.boots)
}

func (s *sim) keys() []string {
	keys, err := s.client.Do(context.Background(), s.client.B().Keys().Pattern("{"+s.name+"}:*").Build()).AsStrSlice()
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

func (s *sim) wipe() {
	for _, k := range s.keys() {
		s.client.Do(context.Background(), s.client.B().Del().Key(k).Build())
	}
}

func (s *sim) dump() map[string]string {
	all := map[string]string{}
	for _, k := range s.keys() {
		if v, err := s.client.Do(context.Background(), s.client.B().Dump().Key(k).Build()).ToString(); err == nil {
			all[k] = v
		}
	}
	return all
}

func (s *sim) load(all map[string]string) {
	for k, v := range all {
		if err := s.client.Do(context.Background(), s.client.B().Restore().Key(k).Ttl(0).SerializedValue(v).Build()).Error(); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *sim) deliverLate() {
	for len(s.late) > 0 && s.rng.IntN(4) > 0 {
		at := s.rng.IntN(len(s.late))
		d := s.late[at]
		s.late = append(s.late[:at], s.late[at+1:]...)
		s.tick()
		d.client.Do(context.Background(), d.cmd)
		s.happened["late"]++
	}
}

func (s *sim) crash(i int) {
	if s.ledgers[i] == nil {
		return
	}
	s.ledgers[i] = nil
	s.happened["crash"]++
}

func (s *sim) admit(i int) {
	m := s.ledgers[i]
	if m == nil {
		return
	}
	r := &limit.Request{
		ID:        fmt.Sprintf("%024x%s", len(s.lives)+int(s.rng.Int64N(1<<40)), m.Mark()),
		Principal: ai.Principal{Team: fmt.Sprint("t", s.rng.IntN(2))}, Model: "m",
		Targets: []limit.Target{{Pool: "p", Input: s.rng.Int64N(80)}},
		Options: []limit.Option{{Output: 50 + s.rng.Int64N(400)}, {Output: 1 + s.rng.Int64N(50)}},
	}
	doubtful := m.untold()
	res := m.Reserve(s.limits, r)
	if m.untold() > doubtful && !res.OK {
		s.happened["doubtful"]++
	}
	switch {
	case res.Unavailable:
		s.happened["unavailable"]++
		return
	case !res.OK:
		s.happened["refused"]++
		return
	}
	s.happened["admitted"]++
	if m.Ready() != nil {
		s.happened["from the pot"]++
	}
	if s.rng.IntN(30) == 0 { // it was not answered
		m.Release(r.ID)
		s.happened["released"]++
		return
	}
	s.lives = append(s.lives, &life{
		r: r, limits: s.limits, replica: i, option: res.Option, admitted: s.now, noted: s.clocks[i](), pot: m.Ready() != nil,
	})
}

// pick is one of the lives for which ok holds.
func (s *sim) pick(ok func(*life) bool) *life {
	var list []*life
	for _, l := range s.lives {
		if ok(l) {
			list = append(list, l)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[s.rng.IntN(len(list))]
}

func (s *sim) end() {
	if l := s.pick(func(l *life) bool { return !l.over }); l != nil {
		s.endOne(l)
	}
}

func (s *sim) endOne(l *life) {
	l.over, l.ended, l.day, l.left = true, s.now, s.server(), s.clocks[l.replica]()
	l.used = []limit.Used{{Pool: "p", Usage: ai.Usage{
		Input: s.rng.Int64N(l.r.Targets[0].Input + 1), Output: s.rng.Int64N(l.r.Options[l.option].Output + 1),
	}}}
	if s.rng.IntN(3) == 0 { // all that was reserved
		l.used[0].Usage = ai.Usage{Input: l.r.Targets[0].Input, Output: l.r.Options[l.option].Output}
	}
}

// enter gives an entry to the replica that decided, in any order and sometimes again.
func (s *sim) enter() {
	again := s.rng.IntN(10) == 0
	l := s.pick(func(l *life) bool { return l.over && l.entered == again && s.ledgers[l.replica] != nil })
	if l == nil {
		return
	}
	m := s.ledgers[l.replica]
	switch {
	case again:
		s.happened["entry again"]++
	case !m.holds(l.r.ID):
		s.t.Fatalf("the replica has forgotten %s", l.r.ID)
	case m.started():
		s.happened["entry after a crash"]++
	}
	l.entered = true
	m.Settle(l.r.ID, l.used)
}

// check compares the promise with what requests truly use.
func (s *sim) check(step int) {
	for _, lim := range s.limits {
		sums := map[string]int64{}
		for _, l := range s.lives {
			team := ""
			if lim.PerTeam {
				team = l.r.Principal.Team
			}
			sums[team] += s.truly(lim, l)
		}
		for team, n := range sums {
			if n > lim.Amount {
				s.t.Errorf("step %d, %v: %s %s has %d of %d", step, s.now, lim.Name, team, n, lim.Amount)
			}
		}
	}
	if len(s.lives) > 400 { // those that matter no more
		kept := s.lives[:0]
		for _, l := range s.lives {
			if !l.entered || l.ended > s.now-25*time.Hour && len(s.lives) < 2000 {
				kept = append(kept, l)
			}
		}
		s.lives = kept
	}
}

// truly is what a request uses of a limit, or may use yet.
func (s *sim) truly(lim *plan.Limit, l *life) int64 {
	now := s.now
	switch {
	case lim.Unit == plan.UnitConcurrency:
		if l.over {
			return 0
		}
		return 1
	case lim.Unit == plan.UnitRequests:
		if l.admitted <= now-lim.Window {
			return 0
		}
		return 1
	case !l.over:
		d := limit.Demands(nil, []*plan.Limit{lim}, l.r)
		return d[0].N[l.option]
	case lim.Period != "":
		from, _ := lim.Period.Bounds(s.server().In(lim.Zone))
		if l.day.Before(from) {
			return 0
		}
	case l.ended <= now-lim.Window:
		return 0
	}
	return limit.Spent(lim, "", l.used)
}

// finish lets everything end, and looks whether anything is left.
func (s *sim) finish() {
	s.settleDown()
	for len(s.late) > 0 {
		s.deliverLate()
	}
	for _, l := range s.lives {
		if !l.over {
			s.endOne(l)
		}
		if !l.entered {
			l.entered = true
			s.ledgers[l.replica].Settle(l.r.ID, l.used)
		}
	}
	s.settleDown()
	for _, m := range s.ledgers {
		if m.Held() != 0 || m.untold() != 0 {
			s.t.Errorf("%d held and %d to be told at the end", m.Held(), m.untold())
		}
	}
	s.now += 2 * simHold // what nobody asks more time for
	s.settleDown()
	for _, st := range s.ledgers[0].all(s.limits) {
		if st.Reserved != 0 {
			s.t.Errorf("%s %v still has %d reserved", st.Limit.Name, st.Scope, st.Reserved)
		}
	}
	s.now += 25 * time.Hour
	s.settleDown()
	if left := s.ledgers[0].all(s.limits); len(left) != 0 {
		s.t.Errorf("left at the end: %+v", left)
	}
	if s.n == 0 {
		return
	}
	for _, k := range s.keys() {
		if strings.HasSuffix(k, ":open") || strings.HasSuffix(k, ":due") {
			s.t.Errorf("%s is left at the end", k)
		}
	}
}
