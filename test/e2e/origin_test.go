package e2e

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// The mesh's proxy has an address of its own, as everybody who connects here.
const (
	proxyAddress    = "127.0.0.9"
	strangerAddress = "127.0.0.7"
)

// svid makes a client certificate with these URIs.
func (a *authority) svid(uris ...string) tls.Certificate {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	return a.pair(template, key)
}

func (a *authority) pair(template *x509.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	a.t.Helper()
	return tls.Certificate{Certificate: [][]byte{a.sign(template, a.cert, &key.PublicKey, a.key).Raw}, PrivateKey: key}
}

// meshWorld has a plain listener, listeners with client certificates, and one that
// believes a mesh's proxy.
type meshWorld struct {
	*world
	ca, foreign                      *authority
	plain, required, optional, trust string // base URLs
}

const meshConfig = `
  - name: required
    address: 127.0.0.1:%REQUIRED%
    tls: {certificate_file: %CERT%, private_key_file: %KEY%, client_ca_file: %CA%}
  - name: optional
    address: 127.0.0.1:%OPTIONAL%
    tls: {certificate_file: %CERT%, private_key_file: %KEY%, client_ca_file: %CA%, client_certificate: optional}
  - name: mesh
    address: 127.0.0.1:%MESH%
    trust_client_cert_header: true
admin:
`

const meshCallers = `
proxy_trust: {trusted_hops: 2, trusted_proxies: [` + proxyAddress + `, 10.0.0.0/8]}
workloads:
  - {name: bots, spiffe_id: "spiffe://example.org/ns/bots/*", team: research, roles: [user]}
  - {name: search, spiffe_id: "spiffe://example.org/ns/search/sa/api", application: assistant, roles: [user]}
request_bounds:
`

func newMeshWorld(t *testing.T, edits ...string) *meshWorld {
	t.Helper()
	w := &meshWorld{ca: newAuthority(t), foreign: newAuthority(t)}
	cert, key := w.ca.issue("weir", x509.ExtKeyUsageServerAuth)
	ports := [3]int{freePort(t), freePort(t), freePort(t)}
	listeners := strings.NewReplacer("%CERT%", cert, "%KEY%", key, "%CA%", w.ca.file, "%REQUIRED%", fmt.Sprint(ports[0]),
		"%OPTIONAL%", fmt.Sprint(ports[1]), "%MESH%", fmt.Sprint(ports[2])).Replace(meshConfig)
	w.world = newWorld(t, append([]string{"admin:\n", strings.TrimPrefix(listeners, "\n"), "request_bounds:\n", meshCallers}, edits...)...)
	w.plain = strings.TrimSuffix(w.base, "/v1")
	w.required, w.optional = fmt.Sprintf("https://127.0.0.1:%d", ports[0]), fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	w.trust = fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	return w
}

func TestWorkloads(t *testing.T) {
	t.Parallel()
	w := newMeshWorld(t)
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	shows := func(certificates ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certificates) == 0 {
				return new(tls.Certificate), nil // none
			}
			return &certificates[0], nil // also one that the server will not like
		}}
	}
	bot := w.ca.svid("spiffe://example.org/ns/bots/sa/one")
	key := []string{"authorization", "Bearer " + testKey}
	spoofed := func(id string) []string {
		return []string{"x-forwarded-client-cert", "By=spiffe://example.org/gw;Hash=00;URI=" + id, "x-weir-peer-uri", id, "x-weir-peer", proxyAddress}
	}
	const known = "spiffe://example.org/ns/search/sa/api"
	for _, tc := range []struct {
		name    string
		base    string
		from    string
		tls     *tls.Config
		headers []string
		status  int // 0: no answer
		reason  string
	}{
		{"a workload", w.required, "127.0.0.1", shows(bot), nil, 200, ""},
		{"a workload by its exact ID", w.required, "127.0.0.1", shows(w.ca.svid(known)), nil, 200, ""},
		{"a workload, optional", w.optional, "127.0.0.1", shows(bot), nil, 200, ""},
		{"a workload and a key", w.required, "127.0.0.1", shows(bot), key, 200, ""},
		{"a workload and a key that is wrong", w.required, "127.0.0.1", shows(bot), []string{"x-api-key", "nope"}, 401, "invalid_key"},
		{"a key without a certificate, optional", w.optional, "127.0.0.1", shows(), key, 200, ""},
		{"a key without a certificate, required", w.required, "127.0.0.1", shows(), key, 0, ""},
		{"neither, optional", w.optional, "127.0.0.1", shows(), nil, 401, "missing_key"},
		{"a certificate of another authority", w.optional, "127.0.0.1", shows(w.foreign.svid(known)), key, 0, ""},
		{"another workload", w.required, "127.0.0.1", shows(w.ca.svid("spiffe://example.org/ns/other")), nil, 401, "unknown_workload"},
		{"another trust domain", w.required, "127.0.0.1", shows(w.ca.svid("spiffe://evil.org/ns/bots/x")), nil, 401, "unknown_workload"},
		{"a prefix that is none", w.required, "127.0.0.1", shows(w.ca.svid("spiffe://example.org/ns/botsy/x")), nil, 401, "unknown_workload"},
		{"below an exact ID", w.required, "127.0.0.1", shows(w.ca.svid(known + "/x")), nil, 401, "unknown_workload"},
		{"dots in the path", w.required, "127.0.0.1", shows(w.ca.svid("spiffe://example.org/ns/bots/../search")), nil, 401, "invalid_identity"},
		{"percent in the path", w.required, "127.0.0.1", shows(w.ca.svid("spiffe://example.org/ns/bots/%2e%2e")), nil, 401, "invalid_identity"},
		{"two IDs", w.required, "127.0.0.1", shows(w.ca.svid(known, "spiffe://example.org/ns/bots/x")), nil, 401, "invalid_identity"},
		{"a comma in the ID", w.required, "127.0.0.1", shows(w.ca.svid("spiffe://example.org/ns/bots/x,spiffe://example.org/y")), nil, 401, "invalid_identity"},
		{"no ID", w.required, "127.0.0.1", shows(w.ca.svid()), nil, 401, "missing_key"},
		{"an ID in the header beside no ID", w.required, "127.0.0.1", shows(w.ca.svid()), spoofed(known), 401, "missing_key"},
		{"an ID in the header beside another", w.required, "127.0.0.1", shows(w.ca.svid("spiffe://example.org/x")), spoofed(known), 401, "unknown_workload"},

		{"spoofed, plain", w.plain, "127.0.0.1", nil, spoofed(known), 401, "missing_key"},
		{"spoofed, plain, from the proxy", w.plain, proxyAddress, nil, spoofed(known), 401, "missing_key"},
		{"spoofed, optional", w.optional, "127.0.0.1", shows(), spoofed(known), 401, "missing_key"},
		{"spoofed, to the mesh's listener", w.trust, "127.0.0.1", nil, spoofed(known), 401, "missing_key"},
		{"spoofed, with a trusted entry", w.trust, strangerAddress, nil, append(spoofed(known), "x-forwarded-for", proxyAddress), 401, "missing_key"},
		{"spoofed beside a key", w.trust, strangerAddress, nil, append(spoofed(known), key...), 200, ""},

		{"from the proxy", w.trust, proxyAddress, nil, []string{"x-forwarded-client-cert", `By=spiffe://example.org/gw;Hash=00;Subject="CN=a,O=b";URI=` + known}, 200, ""},
		{"from the proxy, several elements", w.trust, proxyAddress, nil, []string{"x-forwarded-client-cert", "URI=spiffe://evil.org/a,URI=" + known}, 200, ""},
		{"from the proxy, several lines", w.trust, proxyAddress, nil, []string{"x-forwarded-client-cert", "URI=spiffe://evil.org/a", "x-forwarded-client-cert", "URI=" + known}, 200, ""},
		{"from the proxy, the client's element first", w.trust, proxyAddress, nil, []string{"x-forwarded-client-cert", "URI=" + known + ",URI=spiffe://evil.org/a"}, 401, "unknown_workload"},
		{"from the proxy, an open quote", w.trust, proxyAddress, nil, []string{"x-forwarded-client-cert", `Subject=",URI=` + known}, 401, "invalid_identity"},
		{"from the proxy, no URI", w.trust, proxyAddress, nil, []string{"x-forwarded-client-cert", "Hash=00"}, 401, "missing_key"},
		{"from the proxy, two URIs", w.trust, proxyAddress, nil, []string{"x-forwarded-client-cert", "URI=" + known + ";URI=" + known}, 401, "invalid_identity"},
		{"from the proxy, nothing", w.trust, proxyAddress, nil, nil, 401, "missing_key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := 0.0
			if tc.reason != "" {
				before = w.refusals(t, tc.reason)
			}
			got := ask(t, from(tc.from, tc.tls), tc.base, tc.headers...)
			if got.status != tc.status {
				t.Fatalf("status %d, want %d: %s", got.status, tc.status, got.body)
			}
			if tc.reason != "" && w.refusals(t, tc.reason)-before != 1 {
				t.Errorf("not refused for %s: %s", tc.reason, got.body)
			}
		})
	}
	for _, r := range w.a.Requests() {
		for name := range r.Headers {
			if name = strings.ToLower(name); strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "x-weir-") {
				t.Errorf("a backend received %s", name)
			}
		}
	}
}

// A new authority of clients is in force without a listener that drains.
func TestClientAuthorityChanges(t *testing.T) {
	t.Parallel()
	w := newMeshWorld(t)
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	// Clients insist on their certificate, and resume the sessions that they had.
	clients := map[*authority]*tls.Config{}
	for _, a := range []*authority{w.ca, w.foreign} {
		certificate := a.svid("spiffe://example.org/ns/bots/a")
		clients[a] = &tls.Config{
			RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(4),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
		}
	}
	as := func(a *authority) int { return ask(t, from("127.0.0.1", clients[a]), w.required).status }
	if got := [2]int{as(w.ca), as(w.foreign)}; got != [2]int{200, 0} {
		t.Fatalf("before: %v", got)
	}
	w.write(edited(t, w.yaml, w.ca.file, w.foreign.file)) // the first listener's
	eventually(t, 10*time.Second, func() string {
		if got := [2]int{as(w.ca), as(w.foreign)}; got != [2]int{0, 200} {
			return fmt.Sprintf("after: %v", got)
		}
		return ""
	})
	if n := w.envoyStat(t, "listener_manager.listener_modified"); n != 0 {
		t.Errorf("%d listeners were modified", n)
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	w := newMeshWorld(t,
		"  - name: research\n", "  - name: research\n    network: {allow: [127.0.0.0/29, 203.0.113.0/24], deny: [203.0.113.66]}\n",
		"    application: assistant\n    roles: [user]\n", "    application: assistant\n    roles: [user]\n    network: {allow: [127.0.0.0/30, 203.0.113.0/25, 198.51.100.0/24]}\n",
		"    models: [\"*\"]\n", "    models: [\"*\"]\n    network: {allow: [127.0.0.5, 127.0.0.8]}\n")
	for _, tc := range []struct {
		name      string
		from      string
		key       string
		forwarded []string
		status    int
	}{
		{"the key's and the team's", "127.0.0.1", testKey, nil, 200},
		{"not the key's", "127.0.0.5", testKey, nil, 403},
		{"the team's, another key", "127.0.0.5", otherKey, nil, 200},
		{"not the team's", "127.0.0.8", otherKey, nil, 403},
		{"the team's, not the role's", "127.0.0.6", otherKey, nil, 403},
		{"spoofed from an untrusted hop", "127.0.0.8", testKey, []string{"127.0.0.1"}, 403},
		{"spoofed several times", "127.0.0.8", testKey, []string{"127.0.0.1, 127.0.0.1, " + proxyAddress}, 403},
		{"spoofed in several lines", "127.0.0.8", testKey, []string{"127.0.0.1", proxyAddress}, 403},
		{"an untrusted hop does no harm", "127.0.0.1", testKey, []string{"192.0.2.1"}, 200},
		{"behind the proxy", proxyAddress, testKey, []string{"203.0.113.5"}, 200},
		{"behind two proxies", proxyAddress, testKey, []string{"203.0.113.5, 10.1.1.1"}, 200},
		{"behind three proxies", proxyAddress, testKey, []string{"203.0.113.5, 10.1.1.2, 10.1.1.1"}, 403},
		{"behind the proxy, the client's own entry", proxyAddress, testKey, []string{"203.0.113.5, 192.0.2.1"}, 403},
		{"behind the proxy, IPv4-mapped", proxyAddress, testKey, []string{"::ffff:203.0.113.5"}, 200},
		{"behind the proxy, mapped in hexadecimal", proxyAddress, testKey, []string{"::ffff:cb00:7105"}, 200},
		{"behind the proxy, IPv4-compatible", proxyAddress, testKey, []string{"::203.0.113.5"}, 403},
		{"behind the proxy, denied", proxyAddress, testKey, []string{"203.0.113.66"}, 403},
		{"behind the proxy, denied and mapped", proxyAddress, testKey, []string{"::ffff:203.0.113.66"}, 403},
		{"behind the proxy, the key's only", proxyAddress, testKey, []string{"198.51.100.1"}, 403},
		{"behind the proxy, garbage", proxyAddress, testKey, []string{"203.0.113.5, unknown"}, 403},
		{"behind the proxy, a port", proxyAddress, testKey, []string{"203.0.113.5:4711"}, 200},
		{"the proxy itself", proxyAddress, testKey, nil, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			headers := []string{"authorization", "Bearer " + tc.key}
			for _, f := range tc.forwarded {
				headers = append(headers, "x-forwarded-for", f)
			}
			got := ask(t, from(tc.from, nil), w.plain, headers...)
			want := map[int]string{200: "", 403: "network_not_allowed"}[tc.status]
			if got.status != tc.status || got.code() != want {
				// otherKey may call at private pools only, and pool a is one.
				t.Errorf("status %d, code %q, want %d: %s", got.status, got.code(), tc.status, got.body)
			}
		})
	}
}

// However a path is written, it is judged as the path that it means, or refused:
// none reaches a backend without a key.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.a.fault(t)
	w.b.fault(t)
	address := strings.TrimPrefix(strings.TrimSuffix(w.base, "/v1"), "http://")
	for _, path := range []string{
		"//v1/chat/completions", "/v1//chat/completions", "/v1/./chat/completions", "/v1/../v1/chat/completions", "/x/../v1/chat/completions",
		"/v1/chat%2fcompletions", "/v1/chat%2Fcompletions", "/v1%2fchat/completions", "/v1/chat/%2e%2e/chat/completions", "/v1/models/%2e%2e/chat/completions",
		"/v1/chat/completions/", "/v1/chat/completions.", "/v1/chat/completions;a=b", "/v1;a=b/chat/completions", "/V1/chat/completions", "/v1/Chat/Completions",
		"/v1/chat/completions?x=/v1/models", "/v1/chat/completions#x", "/v1/chat/completions%00", "/v1/chat/completions%20", "/v1/chat\\completions", "/v1/%63hat/completions",
		"/v1/models/../chat/completions", "/v1/models/..%2fchat/completions", "http://evil.example.com/v1/chat/completions", "http://evil.example.com//v1/chat/completions",
		"https://x/v1/chat/completions", "v1/chat/completions", "*", "/v1/chat/completions\t", "/v1/chat/completions?authorization=Bearer%20" + testKey,
	} {
		status := rawRequest(t, address, path)
		if status != 400 && status != 401 && status != 403 && status != 404 { // 403: https over plain text
			t.Errorf("%s: status %d", path, status)
		}
		withKey := rawRequest(t, address, path, "Authorization: Bearer "+otherKey)
		if withKey == 200 && status != 401 {
			t.Errorf("%s: open with a key, and status %d without", path, status)
		}
	}
	for _, r := range append(w.a.Requests(), w.b.Requests()...) {
		if path, _, _ := strings.Cut(r.Path, "?"); path != "/v1/chat/completions" {
			t.Errorf("a backend was asked for %q", r.Path)
		}
	}
}

// rawRequest posts a chat to a path as it is written, and answers the status; 400
// when the connection was ended without one.
func rawRequest(t *testing.T, address, path string, headers ...string) int {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	body := chatBody("chat", false)
	head := append([]string{"POST " + path + " HTTP/1.1", "Host: weir.example.com", "Content-Type: application/json", "Connection: close",
		fmt.Sprintf("Content-Length: %d", len(body))}, headers...)
	if _, err := io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n"+body); err != nil {
		return http.StatusBadRequest
	}
	var proto string
	var status int
	if _, err := fmt.Fscan(conn, &proto, &status); err != nil {
		return http.StatusBadRequest
	}
	return status
}
