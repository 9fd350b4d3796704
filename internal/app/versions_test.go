package app

import (
	"os"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/history"
)

// While a version is pinned, a file that is no good does not keep weir from starting,
// in the default data directory too.
func TestFirstLookBesideAPin(t *testing.T) {
	t.Chdir(t.TempDir())
	const good = `
listeners: [{name: main, address: "127.0.0.1:10080"}]
pools: [{name: a, placement: private, endpoints: [{url: "http://a"}], model: m}]
models: [{name: chat, targets: [{pool: a}]}]
`
	bad := []byte("nonsense: [\n")
	if err := os.WriteFile("weir.yaml", bad, 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{ConfigPath: "weir.yaml"}
	if p, err := firstLook(o); err == nil {
		t.Errorf("without a pin: %+v", p)
	}
	versions := openVersions(DefaultDataDir)
	e, err := versions.Add(history.Entry{Version: "v", Time: time.Now()}, []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if err := versions.Pin(&history.Pin{Number: e.Number, Time: time.Now(), File: history.Hash(bad)}); err != nil {
		t.Fatal(err)
	}
	if p, err := firstLook(o); err != nil || p.Models["chat"] == nil {
		t.Errorf("with a pin: %v", err)
	}
	if err := os.WriteFile("weir.yaml", []byte("nonsense: {\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := firstLook(o); err == nil {
		t.Errorf("another file, which is no good either: %+v", p)
	}
}
