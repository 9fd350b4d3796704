package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

// bench is a world whose clock the test moves, with a client of its own.
type bench struct {
	*world
	t      *testing.T
	client rueidis.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	t.Parallel()
	w := newWorld(redistest.Start(t, redistest.Valkey))
	b := &bench{world: w, t: t, client: w.dial(t)}
	b.advance(0)
	return b
}

func (b *bench) advance(d time.Duration) {
	b.now += d
	b.set(b.client, fmt.Sprintf("%d %s", b.time().UnixMicro(), b.run))
}

// process starts a process of a replica, of so many replicas.
func (b *bench) process(name string, n int, edit ...func(*Options)) *manual {
	b.t.Helper()
	o := b.replica(name, n)
	for _, e := range edit {
		e(&o)
	}
	return newManual(b.t, o)
}

func request(id string, output int64) *limit.Request {
	return &limit.Request{
		ID: id, Principal: ai.Principal{Key: "k", Team: "t"}, Model: "m",
		Targets: []limit.Target{{Pool: "p"}}, Options: []limit.Option{{Output: output}},
	}
}

func output(n int64) []limit.Used { return []limit.Used{{Pool: "p", Usage: ai.Usage{Output: n}}} }

func tokens(amount int64) []*plan.Limit {
	return []*plan.Limit{{Name: "tokens", Unit: plan.UnitTokens, Amount: amount, Window: time.Minute}}
}

// counted is what the server counts for the first of the limits.
func (m *manual) counted(t *testing.T, limits []*plan.Limit) (used, reserved int64) {
	t.Helper()
	states := m.States(limits[:1], request("", 0))
	if len(states) != 1 {
		t.Fatalf("%d states: %v", len(states), m.Ready())
	}
	return states[0].Used, states[0].Reserved
}

func (m *manual) mustCount(t *testing.T, limits []*plan.Limit, used, reserved int64) {
	t.Helper()
	if u, r := m.counted(t, limits); u != used || r != reserved {
		t.Errorf("%d used, %d reserved, want %d and %d", u, r, used, reserved)
	}
}

func TestAnotherProcessOfTheReplica(t *testing.T) {
	b := newBench(t)
	first, second := b.process("one", 1), b.process("one", 1)
	first.mustOpen(t)
	var shut []bool
	first.OnShut(func(s bool) { shut = append(shut, s) })
	second.mustOpen(t)
	if res := first.Reserve(tokens(100), request("a", 1)); res.OK || !res.Unavailable {
		t.Errorf("the process that lost its place reserved: %+v", res)
	}
	first.step()
	first.step()
	if err := first.Ready(); err == nil || !strings.Contains(err.Error(), `another process runs as replica "one"`) {
		t.Errorf("%v", err)
	}
	if !slices.Equal(shut, []bool{false, true}) {
		t.Errorf("shut: %v", shut)
	}
	if !second.Reserve(tokens(100), request("a", 1)).OK {
		t.Error("the process that has the place did not reserve")
	}
}

func TestNoPlaceForOneMore(t *testing.T) {
	b := newBench(t)
	one, two := b.process("one", 1), b.process("two", 1, func(o *Options) { o.Allowance = 50 })
	one.mustOpen(t)
	two.step()
	if err := two.Ready(); err == nil || !strings.Contains(err.Error(), "all 1 places of limit_store.replicas are taken") {
		t.Fatalf("%v", err)
	}
	if res := two.Reserve(tokens(100), request("a", 1)); !res.Unavailable {
		t.Errorf("admitted from the pot without a place: %+v", res)
	}
	if err := two.ForgetReplica(t.Context(), "one"); err == nil || !strings.Contains(err.Error(), "within the last 10 seconds") {
		t.Errorf("a replica that lives was forgotten: %v", err)
	}
	if err := two.ForgetReplica(t.Context(), "none"); err == nil {
		t.Error("forgot one that was never there")
	}
	b.advance(time.Minute)
	if err := two.ForgetReplica(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	two.mustOpen(t)
	one.step()
	one.step()
	if err := one.Ready(); err == nil {
		t.Error("the replica that was forgotten is still in")
	}
	// Fewer replicas than have a place: their pots would be too much.
	more := newBenchOf(b, 2, "a", "b")
	fewer := more.process("a", 1)
	fewer.step()
	fewer.step()
	if err := fewer.Ready(); err == nil || !strings.Contains(err.Error(), "replicas is 1, and a, b have a place") {
		t.Errorf("%v", err)
	}
}

// newBenchOf is another deployment at the same server, open with these replicas.
func newBenchOf(b *bench, n int, names ...string) *bench {
	b.t.Helper()
	w := newWorld(b.server)
	other := &bench{world: w, t: b.t, client: b.client}
	other.advance(0)
	var all []*manual
	for _, name := range names {
		m := other.process(name, n)
		m.step()
		all = append(all, m)
	}
	for _, m := range all {
		m.mustOpen(b.t)
	}
	return other
}

func TestLossNeedsEverybodyOrSomebodysWord(t *testing.T) {
	b := newBench(t)
	one, two := b.process("one", 2), b.process("two", 2)
	one.step()
	if err := one.Ready(); err == nil || !strings.Contains(err.Error(), "1 of 2 replicas") {
		t.Fatalf("%v", err)
	}
	two.mustOpen(t)
	one.mustOpen(t)
	limits := tokens(100)
	one.Reserve(limits, request("a", 10))
	two.Reserve(limits, request("b", 20))
	two.Settle("b", output(15))
	two.step()
	one.mustCount(t, limits, 15, 10)

	for _, k := range b.keys() {
		b.client.Do(t.Context(), b.client.B().Del().Key(k).Build())
	}
	if res := one.Reserve(limits, request("c", 1)); !res.Unavailable {
		t.Errorf("reserved at a server that has forgotten: %+v", res)
	}
	for range 3 {
		one.step()
	}
	if one.Ready() == nil {
		t.Fatal("open without the other one's part")
	}
	op, err := Operate(b.replica("", 2))
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	if c, err := op.Condition(t.Context()); err != nil || c.Open || c.Why != "nothing was there" || !slices.Equal(c.Members, []string{"one"}) {
		t.Errorf("%+v, %v", c, err)
	}
	if missing, err := op.AcceptLoss(t.Context()); err != nil || missing != 1 {
		t.Fatalf("%d, %v", missing, err)
	}
	one.mustOpen(t)
	one.mustCount(t, limits, 0, 10)
	two.mustOpen(t) // it was not gone
	one.mustCount(t, limits, 15, 10)
	if c, err := op.Condition(t.Context()); err != nil || !c.Open || len(c.Members) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	one.Settle("a", output(1))
	one.step()
	one.mustCount(t, limits, 16, 0)
}

func (b *bench) keys() []string {
	keys, err := b.client.Do(context.Background(), b.client.B().Keys().Pattern("{"+b.name+"}:*").Build()).AsStrSlice()
	if err != nil {
		b.t.Fatal(err)
	}
	return keys
}

// An old snapshot at the same server is known by the scripts that it lacks.
func TestOldSnapshot(t *testing.T) {
	b := newBench(t)
	m := b.process("one", 1)
	m.mustOpen(t)
	limits := tokens(100)
	old := map[string]string{}
	for _, k := range b.keys() {
		v, err := b.client.Do(t.Context(), b.client.B().Dump().Key(k).Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		old[k] = v
	}
	m.Reserve(limits, request("a", 10))
	for _, k := range b.keys() {
		b.client.Do(t.Context(), b.client.B().Del().Key(k).Build())
	}
	for k, v := range old {
		if err := b.client.Do(t.Context(), b.client.B().Restore().Key(k).Ttl(0).SerializedValue(v).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	m.step()
	m.mustOpen(t)
	m.mustCount(t, limits, 0, 10)
}

func TestRestartSettlesWhatWasLeft(t *testing.T) {
	b := newBench(t)
	limits := tokens(1000)
	m := b.process("one", 1)
	m.mustOpen(t)
	id := func(s string) string { return s + m.Mark().String() }
	for _, s := range []string{"open", "counted", "found", "unknown", "other"} {
		m.Reserve(limits, request(id(s), 100))
	}
	m.mustCount(t, limits, 0, 500)
	m = b.process("one", 1, func(o *Options) {
		o.Lookup = func(s string) ([]*plan.Limit, limit.Request, []limit.Used, bool) {
			return limits, *request(s, 100), output(20), s == id("found")
		}
	})
	m.Restore(limits, request(id("open"), 100), start)
	m.Count(limits, request(id("counted"), 100), output(3), start, start)
	m.Count(limits, request(id("other"), 100), output(4), start, start)
	m.mustOpen(t)
	m.step()
	m.mustCount(t, limits, 3+4+20+100, 100)
	m.Settle(id("open"), output(1))
	m.step()
	m.mustCount(t, limits, 3+4+20+100+1, 0)
}

func TestReplicaGoneForGood(t *testing.T) {
	b := newBench(t)
	limits := append(tokens(1000), &plan.Limit{Name: "running", Unit: plan.UnitConcurrency, Amount: 1})
	gone, stays := b.process("one", 2), b.process("two", 2)
	gone.step()
	stays.mustOpen(t)
	gone.mustOpen(t)
	if !gone.Reserve(limits, request("a", 70)).OK || stays.Reserve(limits, request("b", 1)).OK {
		t.Fatal("not held")
	}
	for range 29 { // of 30 minutes; the other one's reservation lives as long as it does
		b.advance(time.Minute)
		stays.step()
	}
	if stays.Reserve(limits, request("b", 1)).OK {
		t.Error("admitted before the time was over")
	}
	b.advance(2 * time.Minute)
	stays.step()
	if res := stays.Reserve(limits, request("b", 1)); !res.OK {
		t.Fatalf("%+v", res)
	}
	for range 60 {
		b.advance(time.Minute)
		stays.step()
	}
	if stays.Reserve(limits, request("c", 1)).OK {
		t.Error("a reservation ended whose replica lives")
	}
	gone.Settle("a", output(5)) // it was away only
	gone.step()
	gone.step()
	stays.mustCount(t, limits, 0, 1)
}

func TestDoubtfulReservations(t *testing.T) {
	b := newBench(t)
	limits := tokens(100)
	for _, how := range []fate{never, unanswered, late} {
		other := newBenchOf(b, 1)
		s := &sim{world: other.world, t: t, client: b.client}
		m := other.process("one", 1)
		m.mustOpen(t)
		var c rueidis.Client = &oneWire{Client: b.client, fate: how, s: s}
		real := *m.client.Load()
		m.client.Store(&c)
		if res := m.Reserve(limits, request("a", 10)); !res.Unavailable {
			t.Errorf("%d: %+v", how, res)
		}
		m.client.Store(&real)
		m.mustOpen(t)
		m.step()
		m.mustCount(t, limits, 0, 0)
		for _, d := range s.late {
			d.client.Do(t.Context(), d.cmd)
		}
		m.mustCount(t, limits, 0, 0)
		if res := m.Reserve(limits, request("a", 10)); res.OK {
			t.Errorf("%d: reserved what was given up", how)
		}
		if res := m.Reserve(limits, request("b", 10)); !res.OK {
			t.Errorf("%d: %+v", how, res)
		}
	}
}

// oneWire lets each script have the same fate.
type oneWire struct {
	rueidis.Client
	fate fate
	s    *sim
}

func (w *oneWire) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	failed := rueidis.NewErrorResult(context.DeadlineExceeded)
	switch w.fate {
	case unanswered:
		w.Client.Do(ctx, cmd)
	case late:
		w.s.late = append(w.s.late, delayed{w.Client, cmd.Pin()})
	}
	return failed
}

func TestPot(t *testing.T) {
	b := newBench(t)
	limits := []*plan.Limit{
		{Name: "tokens", Unit: plan.UnitTokens, Amount: 1000, Window: time.Minute},
		{Name: "small", Unit: plan.UnitRequests, Amount: 3, Window: time.Minute, Teams: map[string]bool{"small": true}},
	}
	m := b.process("one", 4, func(o *Options) { o.Allowance = 10; o.Replicas = 4 })
	others := []*manual{b.process("two", 4), b.process("three", 4), b.process("four", 4)}
	if res := m.Reserve(limits, request("early", 1)); !res.Unavailable {
		t.Errorf("admitted from the pot before the replica had a place: %+v", res)
	}
	m.step()
	for _, o := range others {
		o.step()
	}
	m.mustOpen(t)
	if res := m.Reserve(limits, request("most", 900)); !res.OK || res.Tokens != (limit.Figure{Limit: 1000, Remaining: 0, Reset: time.Minute}) {
		t.Fatalf("%+v", res)
	}
	if res := m.Reserve(limits, request("more", 1)); res.OK || res.Limit != limits[0] {
		t.Errorf("the server gave what is the pots': %+v", res)
	}
	b.server.Kill()
	if res := m.Reserve(limits, request("a", 25)); !res.OK || !res.Held {
		t.Errorf("%+v", res)
	}
	if res := m.Reserve(limits, request("b", 1)); res.OK || !res.Unavailable {
		t.Errorf("more than a quarter of a tenth: %+v", res)
	}
	small := request("c", 0)
	small.Principal.Team = "small"
	if res := m.Reserve(limits, small); res.OK {
		t.Errorf("a part of three requests is none: %+v", res)
	}
	m.Settle("a", output(5))
	if res := m.Reserve(limits, request("d", 20)); !res.OK {
		t.Errorf("%+v", res)
	}
	if m.Held() != 2 {
		t.Errorf("%d held, want 2", m.Held())
	}
}

// A server that does not answer is waited for once, and for no longer than was asked.
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey)
	m := newManual(t, Options{Server: Server{Addresses: []string{server.Address()}}, Name: "frozen", Replica: "one", Replicas: 1, Timeout: 100 * time.Millisecond})
	m.mustOpen(t)
	limits := tokens(100)
	server.Freeze()
	began := time.Now()
	if res := m.Reserve(limits, request("a", 10)); !res.Unavailable {
		t.Errorf("%+v", res)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("waited %v", took)
	}
	began = time.Now()
	for range 1000 {
		if res := m.Reserve(limits, request("b", 10)); !res.Unavailable {
			t.Fatalf("%+v", res)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("1000 requests waited %v", took)
	}
	server.Thaw()
	deadline := time.Now().Add(10 * time.Second)
	for m.step(); m.Ready() != nil && time.Now().Before(deadline); m.step() {
		time.Sleep(10 * time.Millisecond)
	}
	m.step()
	m.mustCount(t, limits, 0, 0)
}

func TestEntriesReachTheirReplica(t *testing.T) {
	b := newBench(t)
	one, two := b.process("one", 2), b.process("two", 2)
	one.step()
	two.mustOpen(t)
	one.mustOpen(t)
	two.step()
	give := func(m *manual, to Mark, text string) bool {
		var id [16]byte
		copy(id[12:], to[:])
		return m.HandOn(id, func() ([]byte, error) { return []byte(text), nil })
	}
	if give(b.process("new", 2), one.Mark(), "x") != true {
		t.Error("who does not know the others yet took an entry for another replica's")
	}
	if give(one, one.Mark(), "own") || give(one, MarkOf("nobody"), "nobody's") {
		t.Error("handed on what is nobody else's")
	}
	for i := range 3 {
		if !give(one, two.Mark(), fmt.Sprint("entry ", i)) {
			t.Error("not handed on")
		}
	}
	if sent, more := one.sendSome(t.Context()); !sent || more {
		t.Error("not sent")
	}
	var at reading
	var got []string
	take := func(err error) func(context.Context, [][]byte) error {
		return func(_ context.Context, list [][]byte) error {
			for _, e := range list {
				got = append(got, string(e))
			}
			return err
		}
	}
	if two.takeSome(t.Context(), &at, take(errors.New("the disk is full"))) || len(got) != 3 {
		t.Errorf("took %v", got)
	}
	if !two.takeSome(t.Context(), &at, take(nil)) || len(got) != 6 {
		t.Errorf("took %v: want them again", got)
	}
	again := at
	give(one, two.Mark(), "entry 3")
	one.sendSome(t.Context())
	if !two.takeSome(t.Context(), &at, take(nil)) || len(got) != 7 || got[6] != "entry 3" {
		t.Errorf("took %v", got)
	}
	// The answer was lost: what is dropped again drops nothing else.
	at = again
	if !two.takeSome(t.Context(), &at, take(nil)) || got[7] != "entry 3" {
		t.Errorf("took %v", got)
	}
	// A process that comes later reads what is left, and what was dropped is known.
	at = reading{}
	if !two.takeSome(t.Context(), &at, take(nil)) || len(got) != 9 || two.takeSome(t.Context(), &at, take(nil)) {
		t.Errorf("took %v", got)
	}
}

func TestEntriesAreBounded(t *testing.T) {
	b := newBench(t)
	one, two := b.process("one", 2), b.process("two", 2)
	one.step()
	two.mustOpen(t)
	one.mustOpen(t)
	var id [16]byte
	mark := two.Mark()
	copy(id[12:], mark[:])
	big := make([]byte, 1<<20)
	for range 100 {
		one.HandOn(id, func() ([]byte, error) { return big, nil })
	}
	if n := len(one.outbox.list); n != 64 {
		t.Errorf("%d MiB wait, want 64", n)
	}
}

func TestResetReachesAllReplicas(t *testing.T) {
	b := newBench(t)
	one, two := b.process("one", 2), b.process("two", 2)
	one.step()
	two.mustOpen(t)
	one.mustOpen(t)
	limits := []*plan.Limit{{Name: "day", Unit: plan.UnitOutputTokens, Amount: 100, Period: plan.Day, Zone: time.UTC, PerTeam: true, Breaker: true}}
	two.Reserve(limits, request("a", 100))
	two.Settle("a", output(100))
	two.Reserve(limits, request("b", 1))
	two.step()
	one.step()
	if res := one.Reserve(limits, request("c", 1)); res.OK || !res.Open {
		t.Fatalf("%+v", res)
	}
	states, err := one.Reset(t.Context(), limits[0], func(s limit.Scope) bool { return s.Team == "t" })
	if err != nil || len(states) != 1 || states[0].Used != 100 || !states[0].Open {
		t.Errorf("%+v", states)
	}
	if res := one.Reserve(limits, request("d", 30)); !res.OK {
		t.Errorf("%+v", res)
	}
	two.step()
	if n := len(two.own.Counts()); n != 0 {
		t.Errorf("the other one still knows %+v, which was reset", two.own.Counts())
	}
	if all, err := one.All(t.Context(), limits); err != nil || len(all) != 1 || all[0].Reserved != 30 || all[0].Used != 0 {
		t.Errorf("%+v", all)
	}
}

func TestNewLimitsCountWhatWasBefore(t *testing.T) {
	b := newBench(t)
	one, two := b.process("one", 2), b.process("two", 2)
	one.step()
	two.mustOpen(t)
	one.mustOpen(t)
	old, fresh := tokens(1000)[0], &plan.Limit{Name: "fresh", Unit: plan.UnitOutputTokens, Amount: 1000, Window: time.Hour}
	one.Reserve([]*plan.Limit{old}, request("running", 40))
	for i, m := range []*manual{one, two} {
		m.Fresh(fresh)
		m.Count([]*plan.Limit{fresh}, request(fmt.Sprint("before-", i), 10), output(int64(100+i)), b.time(), b.time())
		m.Introduce(t.Context())
		m.Introduce(t.Context())
		if i == 0 {
			m.Count([]*plan.Limit{fresh}, request("since", 10), output(1000), b.time(), b.time())
			m.Restore([]*plan.Limit{old, fresh}, request("running", 40), b.time())
			m.step()
			m.mustCount(t, []*plan.Limit{fresh}, 1100, 40)
		}
	}
	two.mustCount(t, []*plan.Limit{fresh}, 1201, 40)
	one.Settle("running", output(7))
	one.step()
	two.mustCount(t, []*plan.Limit{fresh}, 1208, 0)
	two.mustCount(t, []*plan.Limit{old}, 7, 0)
}

// A check is the server's for a probe; for others only while a count refuses.
func TestCheck(t *testing.T) {
	b := newBench(t)
	m := b.process("one", 1)
	limits := tokens(100)
	probe := request(ai.ProbeID(strings.Repeat("0", 32)), 60)
	if res := m.Check(limits, probe); !res.Unavailable {
		t.Errorf("a probe before the server was reached: %+v", res)
	}
	if res := m.Check(limits, request("a", 60)); !res.OK {
		t.Errorf("%+v", res)
	}
	m.mustOpen(t)
	m.Reserve(limits, request("a", 60))
	if res := m.Check(limits, probe); res.OK || res.Limit != limits[0] {
		t.Errorf("a probe: %+v", res)
	}
	b.advance(2 * tightFor)
	if res := m.Check(limits, request("b", 60)); !res.OK {
		t.Errorf("%+v", res)
	}
	if res := m.Reserve(limits, request("b", 60)); res.OK {
		t.Errorf("%+v", res)
	}
	if res := m.Check(limits, request("b", 60)); res.OK || res.Tokens.Remaining != 40 {
		t.Errorf("after a refusal: %+v", res)
	}
	if res := m.Check(limits, request("b", 40)); !res.OK || res.Held {
		t.Errorf("what fits: %+v", res)
	}
	m.mustCount(t, limits, 0, 60)
}

func TestUsersBeyondTheBoundShare(t *testing.T) {
	b := newBench(t)
	m := b.process("one", 1, func(o *Options) { o.maxUsers = 2 })
	m.mustOpen(t)
	limits := []*plan.Limit{{Name: "user", Unit: plan.UnitRequests, Amount: 2, Window: time.Minute, PerUser: true}}
	ask := func(id, user string) bool {
		r := request(id, 0)
		r.Principal.User = user
		return m.Reserve(limits, r).OK
	}
	for i, tt := range []struct {
		user string
		ok   bool
	}{{"a", true}, {"b", true}, {"c", true}, {"d", true}, {"e", false}, {"a", true}, {"a", false}, {"b", true}} {
		if ask(fmt.Sprint(i), tt.user) != tt.ok {
			t.Errorf("request %d of %s: want %v", i, tt.user, tt.ok)
		}
	}
	b.advance(45 * time.Minute) // what is not used any more makes room
	if !ask("later", "f") || !ask("later still", "f") || ask("too much", "f") || !ask("another", "g") {
		t.Error("users who are gone keep their counts")
	}
}

func TestServerThatDropsCountsIsNotUsed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Valkey, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	m := newManual(t, Options{Server: Server{Addresses: []string{server.Address()}}, Name: "lru", Replica: "one", Replicas: 1})
	m.step()
	if err := m.Ready(); err == nil || !strings.Contains(err.Error(), "maxmemory-policy is allkeys-lru") {
		t.Errorf("%v", err)
	}
}

func TestOldGenerationsAreDropped(t *testing.T) {
	b := newBench(t)
	m := b.process("one", 1)
	m.mustOpen(t)
	m.Reserve(tokens(100), request("a", 10))
	old := m.view.Load().gen
	b.run = "another"
	b.advance(2 * time.Minute)
	m.step()
	m.mustOpen(t)
	b.advance(2 * time.Minute)
	m.step()
	for _, k := range b.keys() {
		if strings.Contains(k, old) || strings.HasSuffix(k, ":old") {
			t.Errorf("%s is left", k)
		}
	}
	m.mustCount(t, tokens(100), 0, 10)
}

func TestTimeThatStandsStill(t *testing.T) {
	b := newBench(t)
	m := b.process("one", 1)
	m.mustOpen(t)
	limits := tokens(100)
	m.Reserve(limits, request("a", 100))
	m.Settle("a", output(100))
	b.advance(time.Second)
	m.step()
	b.advance(-5 * time.Hour) // the clock was wrong until now
	m.step()
	if res := m.Reserve(limits, request("b", 1)); res.OK {
		t.Errorf("%+v", res)
	}
	b.advance(2 * time.Minute)
	m.step()
	if res := m.Reserve(limits, request("b", 1)); res.OK {
		t.Errorf("time went on by a clock that is behind: %+v", res)
	}
	if _, err := m.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.step()
	m.mustOpen(t)
	b.advance(2 * time.Minute)
	if res := m.Reserve(limits, request("c", 1)); !res.OK {
		t.Errorf("%+v", res)
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add("a|tokens|||||||||")
	f.Add(identify(tokens(1)[0], limit.Scope{Team: "a|b%7C", User: limit.OtherUsers}).String())
	f.Fuzz(func(t *testing.T, text string) {
		id, err := parseIdentity(text)
		if err != nil {
			return
		}
		if id.String() != text {
			t.Errorf("%q is read as %+v and written as %q", text, id, id.String())
		}
	})
}

func TestIdentitiesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]limit.Scope{}
	for _, s := range []limit.Scope{{}, {Team: "a"}, {User: "a"}, {Team: "a|"}, {Team: "a", Application: "|"}, {Team: "a%7C"}, {Team: "%"}, {Team: "%25"}} {
		text := identify(tokens(1)[0], s).String()
		if other, ok := seen[text]; ok {
			t.Errorf("%+v and %+v are both %q", s, other, text)
		}
		seen[text] = s
		if id, err := parseIdentity(text); err != nil || id.scope != s {
			t.Errorf("%+v is read as %+v: %v", s, id, err)
		}
	}
}

// What an operator's server may be: a node of a cluster, or found through sentinels.
func TestClusterAndSentinel(t *testing.T) {
	t.Parallel()
	port := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, p, _ := net.SplitHostPort(l.Addr().String())
		return p
	}
	node, master, sentinel := port(), port(), port()
	for _, tt := range []struct {
		name   string
		server Server
		start  func(t *testing.T)
	}{
		{"cluster", Server{Addresses: []string{"127.0.0.1:" + node}, Cluster: true}, func(t *testing.T) {
			s := redistest.Start(t, redistest.Valkey, "--port", node, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
			c := (&world{server: s}).dial(t)
			if err := c.Do(t.Context(), c.B().ClusterAddslotsrange().StartSlotEndSlot().StartSlotEndSlot(0, 16383).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}},
		{"sentinel", Server{Addresses: []string{"127.0.0.1:" + sentinel}, SentinelMaster: "limits"}, func(t *testing.T) {
			redistest.Start(t, redistest.Valkey, "--port", master)
			redistest.StartSentinel(t, sentinel, "limits", master)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.start(t)
			m := newManual(t, Options{Server: tt.server, Name: "weir", Replica: "one", Replicas: 1})
			deadline := time.Now().Add(15 * time.Second)
			for m.step(); m.Ready() != nil && time.Now().Before(deadline); m.step() {
				time.Sleep(50 * time.Millisecond)
			}
			limits := tokens(100)
			if res := m.Reserve(limits, request("a", 60)); !res.OK {
				t.Fatalf("%+v: %v", res, m.Ready())
			}
			if res := m.Reserve(limits, request("b", 60)); res.OK {
				t.Errorf("%+v", res)
			}
			m.Settle("a", output(10))
			m.step()
			m.mustCount(t, limits, 10, 0)
			if all, err := m.All(t.Context(), limits); err != nil || len(all) != 1 {
				t.Errorf("%+v, %v", all, err)
			}
		})
	}
}
