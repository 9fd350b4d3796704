package app

import (
	"os"
	"slices"
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

// An upgrade checks what the next weir will start with: the pinned version beside a file
// that is no good, and the file where nothing is pinned.
func TestNextProgramChecksWhatIsPinned(t *testing.T) {
	t.Chdir(t.TempDir())
	bad := []byte("nonsense: [\n")
	if err := os.WriteFile("weir.yaml", bad, 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{o: Options{ConfigPath: "weir.yaml"}, dir: "data", versions: openVersions("data")}
	validates := func(when string, want ...string) {
		t.Helper()
		if got, err := a.validation(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", when, got, err, want)
		}
	}
	validates("without a pin", "validate", "weir.yaml")
	e, err := a.versions.Add(history.Entry{Version: "v", Time: time.Now()}, []byte("good: true\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.versions.Pin(&history.Pin{Number: e.Number, Time: time.Now(), File: history.Hash(bad)}); err != nil {
		t.Fatal(err)
	}
	validates("with a pin", "validate", "--in-force", "--data", "data", "weir.yaml")
	if text, pinned, err := InForce("weir.yaml", "data"); err != nil || pinned != e.Number || string(text) != "good: true\n" {
		t.Errorf("in force is %q, version %d, %v", text, pinned, err)
	}
	if text, ok := a.pinned(); !ok || string(text) != "good: true\n" {
		t.Errorf("pinned is %q, %v", text, ok)
	}
	if err := os.Remove("weir.yaml"); err != nil {
		t.Fatal(err)
	}
	validates("with a pin, and no file", "validate", "--in-force", "--data", "data", "weir.yaml")
	if err := os.WriteFile("weir.yaml", []byte("another: file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	validates("after the file has changed", "validate", "weir.yaml")
	if text, ok := a.pinned(); ok {
		t.Errorf("pinned is %q after the file has changed", text)
	}
}
