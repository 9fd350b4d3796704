package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
	"github.com/weirproxy/weir/limit/redis/redistest"
)

// deployment is three replicas of weir over one limit store, and two Envoys. The first
// two replicas tell one Envoy each where it listens.
type deployment struct {
	t        *testing.T
	backend  *backend
	store    *redistest.Server
	replicas [3]*operated
}

// deploymentConfig has %STORE% for the server, %LISTEN% for a listener's address,
// %A% and %KEYS% as baseConfig.
const deploymentConfig = `
listeners: [{name: main, address: "%LISTEN%"}]
admin: {address: "127.0.0.1:0"}
key_hash_secret: {file: "%KEYS%/hash"}
pools:
  - {name: a, placement: private, endpoints: [{url: "%A%"}], model: deepseek-ai/DeepSeek-V3, context_window: 32768}
models: [{name: chat, targets: [{pool: a}], default_max_tokens: 50}]
teams: [{name: research, roles: [user]}]
roles: [{name: user, models: [chat]}]
keys: [{name: tester, secret: {file: "%KEYS%/key"}, team: research}]
limits:
  - {name: output, unit: output_tokens, amount: %AMOUNT%, window: 1h, per: [team]}
limit_store: {redis: {addresses: ["%STORE%"], replicas: 3, timeout: 1s}}
usage: {settle_deadline: %DEADLINE%}
`

// deploymentSecrets is a folder with what all replicas know.
func deploymentSecrets(t *testing.T) string {
	t.Helper()
	keys := t.TempDir()
	for name, value := range map[string]string{"hash": "0123456789abcdef0123456789abcdef", "key": testKey} {
		if err := os.WriteFile(filepath.Join(keys, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// serveReplicas starts n replicas of weir: of gives where an Envoy will listen for each, its
// configuration and the flags beside its name. They stop together, as each takes its time.
func serveReplicas(t *testing.T, n int, of func(i int) (listener, config string, flags []string)) (replicas []*operated) {
	t.Helper()
	t.Cleanup(func() {
		var group sync.WaitGroup
		for _, o := range replicas {
			group.Go(o.stop)
		}
		group.Wait()
		for i, o := range replicas {
			if t.Failed() {
				t.Logf("log of replica %d:\n%s", i, last(o.log.String(), 3000))
			}
		}
	})
	for i := range n {
		listener, config, flags := of(i)
		g := &gateway{t: t, dir: t.TempDir(), base: "http://" + listener + "/v1", config: filepath.Join(t.TempDir(), "weir.yaml")}
		g.write(config)
		o := &operated{world: &world{gateway: g}, flags: append([]string{"--replica", fmt.Sprint("replica-", i)}, flags...)}
		o.serve()
		replicas = append(replicas, o)
	}
	return replicas
}

func deploy(t *testing.T, amount int, deadline string) *deployment {
	t.Helper()
	d := &deployment{t: t, store: redistest.Start(t, redistest.Valkey), backend: newBackend(t, simulate.Options{Record: 20_000, RecordBody: 1})}
	keys := deploymentSecrets(t)
	var addresses []string
	for range d.replicas {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	}
	copy(d.replicas[:], serveReplicas(t, len(d.replicas), func(i int) (string, string, []string) {
		listener := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		config := strings.NewReplacer("%LISTEN%", listener, "%STORE%", d.store.Address(), "%KEYS%", keys, "%A%", d.backend.url,
			"%AMOUNT%", fmt.Sprint(amount), "%DEADLINE%", deadline).Replace(deploymentConfig)
		return listener, config, []string{"--listen", addresses[i], "--advertise", strings.Join(addresses, ",")}
	}))
	d.open()
	for i, o := range d.replicas[:2] {
		o.startEnvoy(addresses[i])
	}
	return d
}

// open waits until every replica counts at the limit store.
func (d *deployment) open() {
	d.t.Helper()
	for _, o := range d.replicas {
		eventually(d.t, 20*time.Second, func() string { return o.notReady() })
	}
}

func (o *operated) notReady() string {
	resp, err := http.Get(o.admin + "/readyz/extproc")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return ""
}

// generated is how many tokens the backend has given out.
func (d *deployment) generated(t *testing.T) (n int64) {
	t.Helper()
	for _, r := range d.backend.Requests() {
		n += int64(r.CompletionTokens)
	}
	return n
}

// stream asks for an answer of so many tokens through one of the Envoys.
func (d *deployment) stream(i, tokens int) (answer, error) {
	body := fmt.Sprintf(`{"model":"chat","stream":true,"max_tokens":%d,"messages":[{"role":"user","content":"Count."}]}`, tokens)
	return d.replicas[i%2].send("POST", "/v1/chat/completions", body, "authorization", "Bearer "+testKey)
}

// TestReplicasShareALimit sends 500 streams at once through two Envoys to three
// replicas, of which only some fit into a limit: none may be given too much, and
// what there is must be given.
func TestReplicasShareALimit(t *testing.T) {
	const amount, each = 6000, 20 // 300 of 500 fit
	d := deploy(t, amount, "60s")
	d.backend.fault(t, simulate.Fault{Chunks: each, ChunkDelayMS: 20})
	var admitted, refused atomic.Int64
	var group sync.WaitGroup
	for i := range 500 {
		group.Go(func() {
			switch a, err := d.stream(i, each); {
			case err != nil:
				t.Errorf("stream %d: %v", i, err)
			case a.status == http.StatusOK:
				admitted.Add(1)
			case a.status == http.StatusTooManyRequests && a.code() == "rate_limit_exceeded":
				refused.Add(1)
			default:
				t.Errorf("stream %d: %d %s", i, a.status, a.body)
			}
		})
	}
	group.Wait()
	// Some were refused while others held what they did not use.
	for range 50 {
		if a, err := d.stream(rand.IntN(2), each); err != nil || a.status != http.StatusOK {
			break
		}
		admitted.Add(1)
	}
	used := d.generated(t)
	t.Logf("%d admitted, %d refused; %d of %d tokens used", admitted.Load(), refused.Load(), used, amount)
	if used > amount || used < amount*99/100 {
		t.Errorf("%d of %d tokens used, want at most all and at least 99 %%", used, amount)
	}
}

// TestReplicasKilled kills replicas and the store at random under load: whatever was
// lost of whom, the limit is not passed, and in the end nothing is held for nobody.
func TestReplicasKilled(t *testing.T) {
	const amount, each = 4000, 10
	d := deploy(t, amount, "3s")
	d.backend.fault(t, simulate.Fault{Chunks: each, ChunkDelayMS: 20})
	stop := make(chan struct{})
	var admitted, unavailable atomic.Int64
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := d.stream(i, each)
				switch {
				case err == nil && a.status == http.StatusOK:
					admitted.Add(1)
				case err == nil && a.status == http.StatusTooManyRequests:
					time.Sleep(20 * time.Millisecond)
				default:
					unavailable.Add(1)
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		time.Sleep(time.Duration(300+rng.IntN(500)) * time.Millisecond)
		o := d.replicas[rng.IntN(len(d.replicas))]
		o.kill()
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		if rng.IntN(2) == 0 {
			d.store.Kill()
			d.store.Run()
		}
		o.serve()
	}
	d.open()
	time.Sleep(2 * time.Second)
	close(stop)
	group.Wait()
	used := d.generated(t)
	t.Logf("%d admitted, %d not answered; %d of %d tokens used", admitted.Load(), unavailable.Load(), used, amount)
	if used > amount {
		t.Errorf("%d of %d tokens used", used, amount)
	}
	if admitted.Load() < 50 {
		t.Errorf("%d admitted: the test does not test much", admitted.Load())
	}
	for i, o := range d.replicas {
		eventually(t, 15*time.Second, func() string {
			if n := o.held(t); n != 0 {
				return fmt.Sprintf("replica %d holds %d", i, n)
			}
			return ""
		})
	}
}

// A deployment that waits for replicas that do not come is opened by somebody's word.
func TestLimitsRecover(t *testing.T) {
	store := redistest.Start(t, redistest.Valkey)
	g := &gateway{t: t, dir: t.TempDir()}
	g.config = filepath.Join(t.TempDir(), "weir.yaml")
	g.write(strings.NewReplacer("%LISTEN%", "127.0.0.1:1", "%STORE%", store.Address(), "%KEYS%", deploymentSecrets(t), "%A%", "http://127.0.0.1:1",
		"%AMOUNT%", "100", "%DEADLINE%", "60s").Replace(deploymentConfig))
	run := func(code int, args ...string) string {
		t.Helper()
		out, errs, got := weir(t, "", append([]string{"limits"}, append(args, "--config", g.config)...)...)
		if got != code {
			t.Errorf("weir limits %v: exit %d, want %d", args, got, code)
		}
		return out + errs
	}
	says := func(text, want string) {
		t.Helper()
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
	says(run(0, "recover"), "waiting: nothing was there. Have said what they know: none")
	says(run(1, "recover", "--accept-loss"), "no replica has told the limit store what it knows")
	o := &operated{world: &world{gateway: g}, flags: []string{"--replica", "replica-0", "--listen", "127.0.0.1:0"}}
	o.serve()
	t.Cleanup(o.stop)
	eventually(t, 10*time.Second, func() string {
		if out := run(0, "recover"); !strings.Contains(out, "Have said what they know: replica-0") {
			return out
		}
		return ""
	})
	if o.notReady() == "" {
		t.Error("ready without the other replicas")
	}
	says(run(0, "recover", "--accept-loss"), "opened; 2 replicas are missing")
	eventually(t, 5*time.Second, o.notReady)
	says(run(0, "recover"), "open; replicas: replica-0")
	says(run(1, "forget-replica", "replica-0"), "was there within the last 10 seconds")
	says(run(1, "forget-replica", "nobody"), `no replica "nobody" has a place`)
	says(run(2, "forget-replica"), "want the name of one replica")
}

// held is how many reservations a replica has open.
func (o *operated) held(t *testing.T) int {
	t.Helper()
	resp, err := http.Get(o.admin + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var status struct {
		Reservations int `json:"reservations"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	return status.Reservations
}

// TestReplicaStops stops one of three replicas under load, and no request fails: it says
// that it is not ready, Envoys go to the others, and then it ends.
func TestReplicaStops(t *testing.T) {
	t.Parallel()
	d := deploy(t, 1_000_000, "60s")
	going := d.replicas[2]
	loads := []*load{d.replicas[0].startLoad(4), d.replicas[1].startLoad(4)}
	sent := func() int64 { return loads[0].ok.Load() + loads[1].ok.Load() }
	time.Sleep(300 * time.Millisecond) // they are under way
	if err := going.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	unready := false
	for range 1000 {
		resp, err := http.Get(going.admin + "/readyz")
		if err != nil {
			break // it has ended
		}
		unready = unready || resp.StatusCode == http.StatusServiceUnavailable
		_ = resp.Body.Close()
		time.Sleep(20 * time.Millisecond)
	}
	going.stop()
	before := sent()
	eventually(t, 10*time.Second, func() string {
		if sent() < before+50 {
			return "too few requests since the replica ended"
		}
		return ""
	})
	for _, l := range loads {
		l.end()
		if refused, strange := l.refused.Load(), l.strange.Load(); refused+strange != 0 {
			t.Errorf("%d requests were refused and %d failed: %v", refused, strange, l.note.Load())
		}
	}
	t.Logf("%d requests, %d of them before the replica had ended", sent(), before)
	if !unready {
		t.Error("/readyz did not say that the replica stops")
	}
}

// TestReplicasShareKeys makes a key at one replica, uses it through all, and revokes it at
// another: within two seconds no replica takes it, nor one that is started again.
func TestReplicasShareKeys(t *testing.T) {
	t.Parallel()
	d := deploy(t, 1_000_000, "60s")
	token := d.replicas[0].secret(t, "create", "shared", "--team", "research", "--roles", "user")
	status := func() (list []int) {
		for i := range 12 { // Envoy asks the replicas in turn
			a, err := d.replicas[i%2].send("POST", "/v1/chat/completions", chatBody("chat", false), "authorization", "Bearer "+token)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, a.status)
		}
		return slices.Compact(list)
	}
	within := func(want int) {
		t.Helper()
		eventually(t, 2*time.Second, func() string {
			if got := status(); !slices.Equal(got, []int{want}) {
				return fmt.Sprintf("%v, want %d from all", got, want)
			}
			return ""
		})
	}
	within(http.StatusOK)
	d.replicas[1].changed(t, "revoke", "shared")
	within(http.StatusUnauthorized)
	d.replicas[2].kill()
	d.replicas[2].serve()
	d.open()
	within(http.StatusUnauthorized)
}
