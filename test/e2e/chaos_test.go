package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/app"
	"github.com/weirproxy/weir/internal/simulate"
	"github.com/weirproxy/weir/limit/redis/redistest"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store/sqlite"
)

var (
	long      = flag.Bool("long", false, "TestChaos lasts two minutes")
	chaosSeed = flag.Uint64("chaos.seed", 0, "what TestChaos kills, and when; 0 is another one each time")
)

// mortal is a backend that can be killed, with all that is open, and comes back at the
// same address.
type mortal struct {
	*simulate.Server
	t       *testing.T
	address string
	server  *http.Server
}

func newMortal(t *testing.T, name string) *mortal {
	t.Helper()
	m := &mortal{Server: simulate.New(simulate.Options{Name: name, RecordBody: 1}), t: t, address: "127.0.0.1:0"}
	m.revive()
	t.Cleanup(m.kill)
	return m
}

func (m *mortal) revive() {
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		m.t.Error(err)
		return
	}
	m.address, m.server = l.Addr().String(), &http.Server{Handler: m.Server, ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(l) }(m.server) // until it is killed
}

func (m *mortal) kill() { _ = m.server.Close() }

const chaosConfig = `
listeners: [{name: main, address: "%LISTEN%"}]
admin: {address: "127.0.0.1:0"}
key_hash_secret: {file: "%KEYS%/hash"}
pools:
  - {name: a, placement: private, endpoints: [{url: "http://%X%"}, {url: "http://%Y%"}], model: m, connect_timeout: 1s, ejection: {for: 1s, at_most: 1s}}
  - {name: b, placement: private, endpoints: [{url: "http://%Z%"}], model: m, connect_timeout: 1s}
models: [{name: chat, targets: [{pool: a}, {pool: b}], default_max_tokens: 50}]
teams: [{name: research, roles: [user]}]
roles: [{name: user, models: [chat]}]
keys: [{name: tester, secret: {file: "%KEYS%/key"}, team: research}]
limits:
  - {name: output, unit: output_tokens, amount: 1000000000, window: 1h, per: [team]}
limit_store: {redis: {addresses: ["%STORE%"], replicas: 2, timeout: 1s}}
usage: {settle_deadline: 5s}
`

// chaos is two replicas of weir, each of which serves all roles, an Envoy that knows
// both, and three backends of one model.
type chaos struct {
	replicas [2]*operated
	backends [3]*mortal

	mu    sync.Mutex
	kills []death
}

// death is when something was dead: until it could serve again.
type death struct {
	what        string
	backend     bool
	from, until time.Time
}

func newChaos(t *testing.T) *chaos {
	t.Helper()
	c := &chaos{}
	store, keys := redistest.Start(t, redistest.Valkey), deploymentSecrets(t)
	for i, name := range []string{"x", "y", "z"} {
		c.backends[i] = newMortal(t, name)
	}
	listener := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	addresses := fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", freePort(t), freePort(t))
	config := strings.NewReplacer("%LISTEN%", listener, "%STORE%", store.Address(), "%KEYS%", keys,
		"%X%", c.backends[0].address, "%Y%", c.backends[1].address, "%Z%", c.backends[2].address).Replace(chaosConfig)
	copy(c.replicas[:], serveReplicas(t, len(c.replicas), func(i int) (string, string, []string) {
		return listener, config, []string{"--listen", strings.Split(addresses, ",")[i], "--advertise", addresses}
	}))
	for _, o := range c.replicas {
		eventually(t, 20*time.Second, o.notReady)
	}
	c.replicas[0].startEnvoy(addresses)
	return c
}

// died notes that something is dead from now on; what it returns notes the end of that.
func (c *chaos) died(what string, backend bool) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := len(c.kills)
	c.kills = append(c.kills, death{what: what, backend: backend, from: time.Now()})
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kills[at].until = time.Now()
	}
}

// within tells whether something of a kind was killed, or was dead, in that time.
func (c *chaos) within(backend bool, from, until time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.kills {
		if k.backend == backend && !k.from.After(until) && (k.until.IsZero() || !k.until.Before(from)) {
			return true
		}
	}
	return false
}

// settled is how long a backend has to be there again until it counts as healthy: as long
// as it is left alone for, and as it takes Envoy to see that that is over.
const settled = 2500 * time.Millisecond

// seen is how long it takes an Envoy to see that a replica is ready again.
const seen = 1500 * time.Millisecond

// rage kills and revives until the time is over. One backend that is healthy is always
// left, and one replica.
func (c *chaos) rage(t *testing.T, rng *rand.Rand, lasts time.Duration) {
	var group sync.WaitGroup
	end := time.Now().Add(lasts)
	ofReplicas := rand.New(rand.NewPCG(rng.Uint64(), 0))
	group.Go(func() {
		var since [len(c.backends)]time.Time
		for time.Now().Before(end) {
			time.Sleep(time.Duration(50+rng.IntN(300)) * time.Millisecond)
			first := rng.IntN(len(c.backends))
			victims := []int{first, (first + 1) % len(c.backends)}[:1+rng.IntN(2)]
			left := 0
			for i, at := range since {
				if !slices.Contains(victims, i) && time.Since(at) > settled {
					left++
				}
			}
			if left == 0 {
				continue
			}
			var back []func()
			for _, i := range victims {
				back = append(back, c.died(fmt.Sprint("backend ", i), true))
				c.backends[i].kill()
			}
			time.Sleep(time.Duration(50+rng.IntN(500)) * time.Millisecond)
			for _, i := range victims {
				c.backends[i].revive()
				since[i] = time.Now()
			}
			for _, f := range back {
				f()
			}
		}
	})
	group.Go(func() {
		rng := ofReplicas
		for time.Now().Before(end) {
			time.Sleep(time.Duration(300+rng.IntN(1500)) * time.Millisecond)
			i := rng.IntN(len(c.replicas))
			back := c.died(fmt.Sprint("replica ", i), false)
			c.replicas[i].kill()
			time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
			c.replicas[i].serve()
			eventually(t, 20*time.Second, c.replicas[i].notReady)
			time.Sleep(seen)
			back()
		}
	})
	group.Wait()
}

// wholeAnswer is what the client was told of its output, and when.
type wholeAnswer struct {
	tokens      int64
	from, until time.Time
}

// tally is how the requests of the clients went.
type tally struct {
	mu    sync.Mutex
	whole map[string]wholeAnswer // by the decision's id
	// Neither whole nor a fault of weir's: a stream whose backend was killed after its
	// first byte, a request whose replica was killed while it decided.
	cut, undecided int
	said           map[string]int // by what was refused then
	strange        []string
}

func (c *chaos) client(n int, stop <-chan struct{}, all *tally) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		stream := (i+n)%2 == 0
		body := fmt.Sprintf(`{"model":"chat","stream":%t,"max_tokens":20,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Count, %d of %d."}]}`, stream, i, n)
		if !stream {
			body = strings.Replace(body, `"stream_options":{"include_usage":true},`, "", 1)
		}
		from := time.Now()
		got, err := c.replicas[0].send("POST", "/v1/chat/completions", body, "authorization", "Bearer "+testKey)
		until := time.Now()
		tokens, whole := outputOf(got.body, stream)
		all.mu.Lock()
		switch {
		case err == nil && got.status == 200 && whole:
			all.whole[got.header.Get("x-weir-decision")] = wholeAnswer{tokens, from, until}
		case got.status == 200 && (err != nil || strings.Contains(got.body, "stream_interrupted")) && c.within(true, from, until):
			all.cut++
		case err == nil && got.status == 503 && got.code() != "" && c.within(false, from, until):
			all.undecided++
			all.said[got.body]++
		default:
			all.strange = append(all.strange, fmt.Sprintf("%s, stream %t: %v, status %d: %.300s", from.Format("05.000"), stream, err, got.status, got.body))
		}
		all.mu.Unlock()
	}
}

// outputOf is what an answer says of its tokens, and whether it is whole.
func outputOf(body string, stream bool) (tokens int64, whole bool) {
	var r struct {
		Choices []struct {
			FinishReason string `json:"finish_reason"`
		}
		Usage *struct {
			CompletionTokens int64 `json:"completion_tokens"`
		}
	}
	if !stream {
		whole = json.Unmarshal([]byte(body), &r) == nil && r.Usage != nil && len(r.Choices) == 1 && r.Choices[0].FinishReason != ""
		if whole {
			tokens = r.Usage.CompletionTokens
		}
		return tokens, whole
	}
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if ok && json.Unmarshal([]byte(data), &r) == nil && r.Usage != nil {
			tokens = r.Usage.CompletionTokens
		}
	}
	return tokens, strings.Contains(body, "data: [DONE]")
}

// TestChaos kills backends and replicas of weir, their xDS servers with them, at random
// under load. A request that a healthy target could have served is served, but for those
// that a killed replica was deciding about just then; nothing is billed twice; and what
// was cut off is never taken for whole.
func TestChaos(t *testing.T) {
	lasts := 6 * time.Second
	if *long {
		lasts = 2 * time.Minute
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed %d", seed)
	c := newChaos(t)
	for _, b := range c.backends {
		if err := b.SetFaults(simulate.Fault{Chunks: 10, ChunkDelayMS: 10}); err != nil {
			t.Fatal(err)
		}
	}
	all := &tally{whole: map[string]wholeAnswer{}, said: map[string]int{}}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for n := range 8 {
		clients.Go(func() { c.client(n, stop, all) })
	}
	time.Sleep(500 * time.Millisecond)
	c.rage(t, rand.New(rand.NewPCG(seed, 0)), lasts)
	time.Sleep(500 * time.Millisecond)
	close(stop)
	clients.Wait()

	total := len(all.whole) + all.cut + all.undecided + len(all.strange)
	for i, s := range all.strange[:min(len(all.strange), 10)] {
		t.Errorf("%d of %d requests failed though a healthy target was there, as %d: %s", len(all.strange), total, i, s)
	}
	if len(all.whole) < 100 {
		t.Errorf("%d whole answers: the test does not test much", len(all.whole))
	}
	if all.undecided*50 > total {
		t.Errorf("%d of %d requests were refused because a replica was killed: more than those that it decided about: %v", all.undecided, total, all.said)
	}

	var events map[string][]*usagev1.Event
	eventually(t, 30*time.Second, func() string {
		events = c.events(t)
		for id := range all.whole {
			if len(events[id]) == 0 {
				return "no event of request " + id
			}
		}
		return ""
	})
	attempts, answered, twice, unknown := 0, 0, 0, 0
	for id, list := range events {
		if len(list) > 1 {
			twice++
			t.Errorf("request %s has %d events: %v", id, len(list), list)
		}
		e := list[0]
		if n := len(e.GetAttempts()); n > 0 {
			attempts, answered = attempts+n, answered+1
		}
		got, ok := all.whole[id]
		switch {
		case !ok:
		case e.GetOutcome() == "unknown" && e.GetTokens().GetOutput() >= got.tokens && c.within(false, got.from, got.until.Add(time.Second)):
			unknown++ // the entry was under way to the replica that was killed: what was reserved is charged
		case e.GetOutcome() != "completed" || e.GetTokens().GetOutput() != got.tokens:
			t.Errorf("request %s: the client got %d tokens, the event says %s, %d", id, got.tokens, e.GetOutcome(), e.GetTokens().GetOutput())
		}
	}
	retries := float64(attempts-answered) / float64(max(answered, 1))
	if retries >= 1 {
		t.Errorf("%.2f retries a request", retries)
	}
	t.Logf("%d requests in %v, %d kills: %d whole, %d cut off after their first byte, %d refused while a replica was killed, %d failed; %d events, %d of whole answers closed by the deadline, %d billed twice, %.3f retries a request",
		total, lasts, len(c.kills), len(all.whole), all.cut, all.undecided, len(all.strange), len(events), unknown, twice, retries)
}

// events are those of all replicas, by the decision's id.
func (c *chaos) events(t *testing.T) map[string][]*usagev1.Event {
	t.Helper()
	all := map[string][]*usagev1.Event{}
	for _, o := range c.replicas {
		file := filepath.Join(o.dir, app.StoreFile)
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
		r, err := sqlite.OpenReader(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		err = r.Since(t.Context(), time.Time{}, func(e *usagev1.Event) error {
			all[e.GetDecision().GetId()] = append(all[e.GetDecision().GetId()], e)
			return nil
		})
		if closing := r.Close(); err != nil || closing != nil {
			t.Fatal(err, closing)
		}
	}
	return all
}
