package envoytest_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/wasm/internal/envoytest"
)

// testConfig is Envoy with the test filter in the listener.
func testConfig(do string, b *backend) envoytest.Config {
	return envoytest.Config{
		Wasm: testWasm, RootID: "test", PluginConfig: do, BodyLimit: 64 << 20,
		Targets:  []envoytest.Target{{Name: "t", Addr: b.Addr}},
		Metadata: map[string]map[string]string{"dotted.name": {"key": "value"}},
	}
}

// Every kind of host call gives what it must, for values of no bytes and of
// many; the filter checks them itself.
func TestHostCalls(t *testing.T) {
	b := newBackend(t, status(200))
	e := envoytest.Start(t, testConfig("calls", b))
	req, err := http.NewRequest("GET", e.URL+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Sent", "one")
	req.Header.Set("X-Sent-Empty", "")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	faults, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 418 || resp.Header.Get("X-Answer") != "yes" {
		t.Errorf("answer %d %v", resp.StatusCode, resp.Header)
	}
	if len(faults) > 0 {
		t.Errorf("the filter found:\n%s", faults)
	}
	// Envoy writes its log while the answer travels.
	logged := func() bool { return strings.Contains(e.Log(), "a log line of the test filter") }
	for end := time.Now().Add(10 * time.Second); !logged() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if !logged() {
		t.Error("the filter's log line is not in Envoy's log")
	}
	if len(b.requests()) != 0 {
		t.Error("the request went on after the filter's own answer")
	}
}

// Bodies of no bytes and of 20 MB pass through the filter's memory whole and
// unharmed, request and response.
func TestBodies(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16)
	echo := newBackend(t, nil)
	echo.answers(func(w http.ResponseWriter, _ *http.Request) {
		got := echo.requests()
		_, _ = w.Write(got[len(got)-1].Body)
	})
	e := envoytest.Start(t, testConfig("bodies", echo))
	upper := bytes.ToUpper(large)
	for name, tc := range map[string]struct {
		do        string
		body      []byte
		sent, got []byte
	}{
		"request, 20 MB":         {"upper", large, upper, upper},
		"request, 1 byte":        {"upper", []byte("a"), []byte("A"), []byte("A")},
		"head of 20 MB":          {"head", large, append([]byte("<new head>"), large[5:]...), append([]byte("<new head>"), large[5:]...)},
		"all of it is head":      {"head", []byte("12345"), []byte("<new head>"), []byte("<new head>")},
		"response to nothing":    {"empty", large[:1<<20], large[:1<<20], nil},
		"response, 20 MB":        {"whole", large, large, append([]byte("20971520 20971519 "), large...)},
		"response, 20 MB passes": {"pieces", large, large, upper},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest("POST", e.URL+"/", bytes.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Body", tc.do)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, tc.got) {
				t.Errorf("status %d, %v, the client got %d bytes, want %d", resp.StatusCode, err, len(got), len(tc.got))
			}
			sent := echo.requests()
			if body := sent[len(sent)-1].Body; !bytes.Equal(body, tc.sent) {
				t.Errorf("the backend got %d bytes, want %d", len(body), len(tc.sent))
			}
		})
	}
	if strings.Contains(e.Log(), "critical") {
		t.Error("a host call failed in the filter")
	}
}
