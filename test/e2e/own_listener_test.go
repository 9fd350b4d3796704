package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// An Envoy whose listener stays its operator's is governed by routes and clusters
// from weir, and a listener that is added to weir's file is none of its business.
func TestOwnListener(t *testing.T) {
	t.Parallel()
	o := newServe(t, "--listen", "127.0.0.1:0")
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	rendered, errs, code := weir(t, "", "envoy", "render", "--config", o.config, "--data", o.dir,
		"--xds", o.ready.GRPCAddress, "--node", "own", "--envoy-admin", admin)
	if code != 0 {
		t.Fatalf("weir envoy render: exit %d: %s", code, errs)
	}
	// The operator makes the listener theirs.
	o.runEnvoy(edited(t, rendered, `"server_name": "weir"`, `"server_name": "operator"`))
	o.waitEnvoy()

	o.a.fault(t)
	o.oneOfEach(t)
	o.a.received(t, 2)
	o.served(t, 2)
	o.waitCurrent(t, "own")

	if got := o.chat("chat"); got.status != 200 || got.header.Get("server") != "operator" {
		t.Errorf("not the operator's listener: status %d from %q", got.status, got.header.Get("server"))
	}
	t.Run("changes", func(t *testing.T) {
		other := fmt.Sprintf("listeners:\n  - {name: other, address: \"127.0.0.1:%d\"}\n", freePort(t))
		o.write(edited(t, o.yaml, "listeners:\n", other, "name: cloud\n", "name: cloud2\n", "cloud,", "cloud2,"))
		eventually(t, 20*time.Second, func() string {
			if got := o.chat("cloud2"); got.status != 200 {
				return fmt.Sprintf("the new model: status %d: %s", got.status, got.body)
			}
			return ""
		})
		o.waitCurrent(t, "own")
	})
}

// waitCurrent waits until weir says that the Envoy has all that it needs.
func (o *operated) waitCurrent(t *testing.T, id string) {
	t.Helper()
	eventually(t, 15*time.Second, func() string {
		_, body := o.adminGet(t, "/status")
		var status struct {
			XDS struct {
				Nodes []struct {
					ID      string            `json:"id"`
					Current bool              `json:"current"`
					Acked   map[string]string `json:"acked"`
				} `json:"nodes"`
			} `json:"xds"`
		}
		if err := json.NewDecoder(strings.NewReader(body)).Decode(&status); err != nil {
			return err.Error()
		}
		for _, n := range status.XDS.Nodes {
			if n.ID == id && n.Current && n.Acked["Cluster"] != "" && n.Acked["Listener"] == "" {
				return ""
			}
		}
		return body
	})
}
