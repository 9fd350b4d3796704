package istio

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	testKey = "weir-istio-key-0123456789abcdef"
	nearKey = "weir-istio-near-0123456789abcdef"
	farKey  = "weir-istio-far-0123456789abcdef"
	botID   = "spiffe://example.org/ns/bots/sa/one"
)

// weirConfig has a model that answers, one whose only target refuses connections, and
// keys that open from certain addresses only.
const weirConfig = `
listeners:
  - name: main
    address: 127.0.0.1:%LISTEN%
    trust_client_cert_header: true
    %TLS%
admin: {address: "127.0.0.1:0"}
proxy_trust: {trusted_proxies: [127.0.0.1]}
simulators:
  - {name: vllm, listen: "127.0.0.1:%BACKEND%"}
pools:
  - {name: gpu, adapter: vllm, placement: private, model: deepseek-ai/DeepSeek-V3, context_window: 32768, endpoints: [{url: "http://127.0.0.1:%BACKEND%/v1"}], price: {input: 1, output: 1}}
  - {name: gone, adapter: vllm, placement: private, model: deepseek-ai/DeepSeek-V3, context_window: 32768, endpoints: [{url: "http://127.0.0.1:%CLOSED%/v1"}], price: {input: 1, output: 1}}
models:
  - {name: chat, targets: [{pool: gpu}]}
  - {name: broken, targets: [{pool: gone}]}
roles: [{name: user, models: [chat, broken]}]
teams: [{name: research}]
workloads: [{name: bots, spiffe_id: "spiffe://example.org/ns/bots/*", team: research, roles: [user]}]
keys:
  - {name: tester, secret: {file: key}, team: research, roles: [user]}
  - {name: near, secret: {file: near}, team: research, roles: [user], network: {allow: [%OWN%]}}
  - {name: far, secret: {file: far}, team: research, roles: [user], network: {allow: [240.0.0.0/8]}}
`

// world is a client's way through the gateway, weir's Envoy, and to a backend.
type world struct {
	*gateway
	t       *testing.T
	ca      *authority
	url     string
	backend string
	data    string
	objects string
}

// newWorld renders the way with the flags and goes it. Behind TLS, weir's listener
// requires a client certificate too.
func newWorld(t *testing.T, overTLS bool, flags ...string) *world {
	t.Helper()
	w := &world{t: t, ca: newAuthority(t)}
	dir, own := t.TempDir(), ownAddress(t)
	listen, backend := freePort(t), freePort(t)
	for name, text := range map[string]string{"key": testKey, "near": nearKey, "far": farKey, "ca.pem": w.ca.pem} {
		write(t, dir, name, text)
	}
	socket := ""
	if overTLS {
		cert, key := w.ca.issue("weir.example.org")
		write(t, dir, "tls.pem", cert)
		write(t, dir, "tls-key.pem", key)
		socket = "tls: {certificate_file: tls.pem, private_key_file: tls-key.pem, client_ca_file: ca.pem}"
		flags = append(flags, "--upstream-secret", "weir-client", "--upstream-server-name", "weir.example.org")
	}
	config := write(t, dir, "weir.yaml", strings.NewReplacer("%LISTEN%", fmt.Sprint(listen), "%TLS%", socket, "%BACKEND%", fmt.Sprint(backend),
		"%CLOSED%", fmt.Sprint(freePort(t)), "%OWN%", own).Replace(weirConfig))
	w.backend = fmt.Sprintf("http://127.0.0.1:%d", backend)
	w.data = startWeir(t, config)

	port := freePort(t)
	w.url = fmt.Sprintf("https://%s:%d", own, port)
	w.objects = weir(t, append([]string{"envoy", "render", "--config", config, "--data", w.data, "--for", "istio", "--host", gatewayHost,
		"--gateway-port", fmt.Sprint(port), "--gateway-secret", "ai-cert", "--gateway-client-certificate", "optional",
		"--address", fmt.Sprintf("127.0.0.1:%d", listen)}, flags...)...)
	cert, key := w.ca.issue(gatewayHost)
	ownCert, ownKey := w.ca.issue("spiffe://cluster.local/ns/istio-system/sa/gateway")
	w.gateway = newGateway(t, w.objects,
		secret("ai-cert", map[string]string{"tls.crt": cert, "tls.key": key, "ca.crt": w.ca.pem}),
		secret("weir-client", map[string]string{"tls.crt": ownCert, "tls.key": ownKey, "ca.crt": w.ca.pem}))
	eventually(t, 30*time.Second, func() string {
		if got := w.send(nil, "GET", "/v1/models", "", testKey); got.status != 200 {
			return fmt.Sprintf("no way to weir: %d %s", got.status, got.body)
		}
		return ""
	})
	return w
}

type answer struct {
	status int
	header http.Header
	body   string
}

// client connects from the machine's own address, as the name that the gateway serves.
func (w *world) client(shows *tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	c := &tls.Config{RootCAs: roots, ServerName: gatewayHost}
	if shows != nil {
		c.Certificates = []tls.Certificate{*shows}
	}
	transport := &http.Transport{TLSClientConfig: c, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func (w *world) request(method, path, body, key string, headers ...string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Host = gatewayHost
	r.Header.Set("content-type", "application/json")
	if key != "" {
		r.Header.Set("authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (w *world) send(shows *tls.Certificate, method, path, body, key string, headers ...string) answer {
	w.t.Helper()
	r, err := w.client(shows).Do(w.request(method, path, body, key, headers...))
	if err != nil {
		return answer{body: err.Error()}
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return answer{body: err.Error()}
	}
	return answer{r.StatusCode, r.Header, string(b)}
}

func chat(model string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hello"}],"max_tokens":32}`, model)
}

const chatPath = "/v1/chat/completions"

func TestGoverned(t *testing.T) {
	for name, overTLS := range map[string]bool{"plain": false, "mutual TLS": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, overTLS)
			t.Run("answers", w.answers)
			t.Run("stream", w.streams)
			t.Run("address", w.addresses)
			t.Run("certificate", w.certificates)
			t.Run("once", w.once)
			t.Run("as rendered", w.asRendered)
		})
	}
}

// answers: a key is refused by weir, in its words; a good call is answered and metered.
func (w *world) answers(t *testing.T) {
	before := w.usage(t, "tester", "chat")
	for _, key := range []string{"", "weir-wrong-key"} {
		got := w.send(nil, "POST", chatPath, chat("chat"), key)
		if got.status != 401 || !strings.Contains(got.body, `"error"`) {
			t.Errorf("key %q: %d %s", key, got.status, got.body)
		}
	}
	got := w.send(nil, "POST", chatPath, chat("chat"), testKey)
	if got.status != 200 || got.header.Get("x-weir-decision") == "" {
		t.Fatalf("%d %v %s", got.status, got.header, got.body)
	}
	var reply struct {
		Usage struct {
			Total int `json:"total_tokens"`
		} `json:"usage"`
	}
	if err := json.Unmarshal([]byte(got.body), &reply); err != nil || reply.Usage.Total == 0 {
		t.Fatalf("%v: %s", err, got.body)
	}
	w.waitUsage(t, "tester", "chat", used{before.requests + 1, before.tokens + reply.Usage.Total})
}

// streams: chunk by chunk, to the end.
func (w *world) streams(t *testing.T) {
	body := strings.Replace(chat("chat"), `"max_tokens"`, `"stream":true,"max_tokens"`, 1)
	r, err := w.client(nil).Do(w.request("POST", chatPath, body, testKey))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	chunks, done := 0, false
	for in := bufio.NewScanner(r.Body); in.Scan(); {
		if strings.HasPrefix(in.Text(), "data: ") {
			chunks++
			done = in.Text() == "data: [DONE]"
		}
	}
	if r.StatusCode != 200 || chunks < 5 || !done {
		t.Errorf("status %d, %d chunks, done %v", r.StatusCode, chunks, done)
	}
}

// addresses: what the gateway saw counts, and never what the client says.
func (w *world) addresses(t *testing.T) {
	for _, tc := range []struct {
		key, says string
		status    int
	}{
		{nearKey, "", 200}, {nearKey, "240.0.0.1", 200},
		{farKey, "", 403}, {farKey, "240.0.0.1", 403}, {farKey, "240.0.0.1, 240.0.0.1", 403},
	} {
		var headers []string
		if tc.says != "" {
			headers = []string{"x-forwarded-for", tc.says}
		}
		if got := w.send(nil, "POST", chatPath, chat("chat"), tc.key, headers...); got.status != tc.status {
			t.Errorf("key %q, x-forwarded-for %q: %d %s, want %d", tc.key, tc.says, got.status, got.body, tc.status)
		}
	}
}

// certificates: a workload is known by what it shows to the gateway, and by nothing
// that it writes. The gateway's own certificate opens nothing.
func (w *world) certificates(t *testing.T) {
	bot, stranger := w.ca.pair(botID), w.ca.pair("spiffe://example.org/ns/other/sa/one")
	spoof := []string{"x-forwarded-client-cert", "URI=" + botID}
	for _, tc := range []struct {
		name    string
		shows   *tls.Certificate
		headers []string
		status  int
	}{
		{"a workload", &bot, nil, 200}, {"nobody", nil, nil, 401}, {"nobody, who writes", nil, spoof, 401}, {"a stranger, who writes", &stranger, spoof, 401},
	} {
		if got := w.send(tc.shows, "POST", chatPath, chat("chat"), "", tc.headers...); got.status != tc.status {
			t.Errorf("%s: %d %s, want %d", tc.name, got.status, got.body, tc.status)
		}
	}
}

// once: what fails is not sent again by the gateway.
func (w *world) once(t *testing.T) {
	before := w.usage(t, "tester", "broken")
	got := w.send(nil, "POST", chatPath, chat("broken"), testKey)
	if got.status != 503 || !strings.Contains(got.body, `"error"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	w.waitUsage(t, "tester", "broken", used{before.requests + 1, before.tokens})
	time.Sleep(300 * time.Millisecond)
	w.waitUsage(t, "tester", "broken", used{before.requests + 1, before.tokens})
}

// asRendered: nothing in the gateway ends a long answer or tries it again.
func (w *world) asRendered(t *testing.T) {
	dump := w.ask("/config_dump")
	for _, want := range []string{`"timeout": "0s"`, `"stream_idle_timeout": "0s"`, `"use_remote_address": true`, `"idle_timeout": "840s"`} {
		if !strings.Contains(dump, want) {
			t.Errorf("the gateway's configuration has no %s", want)
		}
	}
	for _, never := range []string{`"num_retries"`, `"retry_on"`} {
		if strings.Contains(dump, never) {
			t.Errorf("the gateway's configuration has %s", never)
		}
	}
}

type used struct{ requests, tokens int }

// usage sums up what a key used of a model.
func (w *world) usage(t *testing.T, key, model string) (sum used) {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader([]byte(weir(t, "usage", "--data", w.data, "--by", "key,model", "--format", "csv")))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	number := func(row []string, name string) (n int) {
		i, ok := column[name]
		if !ok {
			t.Fatalf("no column %q in %v", name, rows[0])
		}
		_, _ = fmt.Sscan(row[i], &n)
		return n
	}
	for _, row := range rows[1:] {
		if row[column["key"]] == key && row[column["model"]] == model {
			sum.requests += number(row, "requests")
			sum.tokens += number(row, "input_tokens") + number(row, "output_tokens")
		}
	}
	return sum
}

func (w *world) waitUsage(t *testing.T, key, model string, want used) {
	t.Helper()
	eventually(t, 10*time.Second, func() string {
		if got := w.usage(t, key, model); got != want {
			return fmt.Sprintf("usage of %s: %+v, want %+v", model, got, want)
		}
		return ""
	})
}

// An address that refuses connections is left out after a few requests.
func TestDeadAddress(t *testing.T) {
	dead := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	w := newWorld(t, false, "--address", dead)
	failed, passed := 0, 0
	eventually(t, 10*time.Second, func() string {
		if got := w.send(nil, "GET", "/v1/models", "", testKey); got.status != 200 {
			failed++
			passed = 0
			return fmt.Sprintf("%d %s", got.status, got.body)
		}
		passed++
		if out := strings.Contains(w.ask("/clusters"), dead+"::health_flags::/failed_outlier_check"); !out || passed < 40 {
			return fmt.Sprintf("left out: %v; %d requests went well", out, passed)
		}
		return ""
	})
	t.Logf("%d requests failed before the address was left out", failed)
	if failed > 10 {
		t.Errorf("%d requests failed", failed)
	}
}
