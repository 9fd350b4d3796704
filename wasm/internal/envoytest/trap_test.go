package envoytest_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/weirproxy/weir/wasm/internal/envoytest"
)

// What other streams of the same worker lose when the VM dies under one: those
// that are open are cut; new ones are refused until the VM is back, which takes
// no more than a few seconds; and nothing ever passes unadapted.
func TestTrap(t *testing.T) {
	for _, how := range []string{"panic", "deadlock", "memory"} {
		t.Run(how, func(t *testing.T) {
			body, req := request(`,"stream":true}`, true, true)
			resume := make(chan struct{})
			b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
				stream(role, hello)(w, r)
				select {
				case <-resume:
				case <-r.Context().Done():
					return
				}
				_, _ = io.WriteString(w, world+finish+usage+done)
			})
			cfg := adapterConfig(req, target(t, b.Addr, pool))
			cfg.Wasm, cfg.PluginConfig = testWasm, "trap"
			e := envoytest.Start(t, cfg)

			open, err := http.Post(e.URL+"/v1/chat/completions", "application/json", bytes.NewReader(body))
			if err != nil || open.StatusCode != 200 {
				t.Fatalf("%v, %v", open, err)
			}
			defer open.Body.Close()
			first := make([]byte, len(role+hello))
			if _, err := io.ReadFull(open.Body, first); err != nil {
				t.Fatal(err)
			}

			hr, _ := http.NewRequest("POST", e.URL+"/v1/chat/completions", bytes.NewReader(body))
			hr.Header.Set("X-Trap", how)
			resp, err := http.DefaultClient.Do(hr)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode < 500 {
				t.Errorf("the request that trapped got %d", resp.StatusCode)
			}
			close(resume)
			rest, err := io.ReadAll(open.Body)
			if err == nil {
				t.Errorf("the stream that was open ended as if it were whole, after %d bytes more", len(rest))
			}
			t.Logf("the stream that was open got %d bytes more, then %v", len(rest), err)

			began, refused := time.Now(), 0
			envoytest.Eventually(t, "a request succeeds again", func() bool {
				got := post(t, e.URL+"/v1/chat/completions", body)
				if got.Status == 200 {
					return got.Body == role+hello+world+finish+done
				}
				refused++
				return false
			})
			t.Logf("%d requests were refused in %v until the VM was back", refused, time.Since(began))
			for _, r := range b.requests() {
				if !bytes.Contains(r.Body, []byte(`"real"`)) {
					t.Errorf("an unadapted request reached the backend: %s", r.Body)
				}
			}
		})
	}
}
