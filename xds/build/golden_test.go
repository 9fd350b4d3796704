package build_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/internal/config"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds/build"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// A case is a file: weir.yaml and what it refers to, options.json (what differs
// from the options of one machine), and what comes out: resources by type, or
// the error.
const (
	inputConfig  = "weir.yaml"
	inputOptions = "options.json"
	outputPrefix = "want/"
)

func TestGolden(t *testing.T) {
	for name, file := range cases(t) {
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			inputs := archive.Files[:0:0]
			for _, f := range archive.Files {
				if strings.HasPrefix(f.Name, outputPrefix) {
					want[f.Name] = string(f.Data)
				} else {
					inputs = append(inputs, f)
				}
			}
			outputs := render(t, archive)
			if *update {
				archive.Files = slices.Concat(inputs, outputs)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			got := map[string]string{}
			for _, f := range outputs {
				got[f.Name] = string(f.Data)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func cases(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	m := make(map[string]string, len(files))
	for _, f := range files {
		m[strings.TrimSuffix(filepath.Base(f), ".txtar")] = f
	}
	return m
}

// shownDir stands for a case's directory in its expectations: the names of
// resources depend on the paths in them.
const shownDir = "/case"

// buildCase runs a case in a directory of its own. In what is shown, the
// directory is shownDir.
func buildCase(t *testing.T, archive *txtar.Archive, shown bool) (*build.Resources, string, error) {
	t.Helper()
	dir := t.TempDir()
	root := dir
	if shown {
		root = shownDir
	}
	o := build.Options{
		ExtProc:       build.Service{Address: "unix:/run/weir/extproc.sock"},
		AccessLogFile: filepath.Join(root, "access.log"),
		WasmFile:      filepath.Join(root, "adapter.wasm"),
		SystemCAFile:  "/etc/ssl/certs/ca-certificates.crt",
	}
	for _, f := range archive.Files {
		path := filepath.Join(dir, f.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, f.Data, 0o600)); err != nil {
			t.Fatal(err)
		}
		if f.Name == inputOptions {
			if err := json.Unmarshal(bytes.ReplaceAll(f.Data, []byte("$DIR"), []byte(root)), &o); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := load(t, filepath.Join(dir, inputConfig))
	for _, pool := range p.Pools {
		pool.CAFile = strings.Replace(pool.CAFile, dir, root, 1)
	}
	for _, t := range p.TokenIssuers {
		if t.Remote != nil {
			t.Remote.CAFile = strings.Replace(t.Remote.CAFile, dir, root, 1)
		}
	}
	r, err := build.Build(p, o)
	return r, dir, err
}

func load(t *testing.T, path string) *plan.Plan {
	t.Helper()
	p, err := config.Load(path, config.Options{
		ReadOnly: true,
		Getenv:   func(name string) (string, bool) { return "value-of-" + name, true },
		Now:      func() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func render(t *testing.T, archive *txtar.Archive) []txtar.File {
	t.Helper()
	r, _, err := buildCase(t, archive, true)
	if err != nil {
		return []txtar.File{{Name: outputPrefix + "error", Data: []byte(err.Error() + "\n")}}
	}
	return []txtar.File{
		{Name: outputPrefix + "listeners.json", Data: text(t, r.Listeners)},
		{Name: outputPrefix + "routes.json", Data: text(t, r.Routes)},
		{Name: outputPrefix + "clusters.json", Data: text(t, r.Clusters)},
		{Name: outputPrefix + "endpoints.json", Data: text(t, r.Endpoints)},
		{Name: outputPrefix + "secrets.json", Data: text(t, r.Secrets)},
		{Name: outputPrefix + "extensions.json", Data: text(t, r.Extensions)},
	}
}

// text is JSON with the names of the proto fields, indented the same each time.
func text[M proto.Message](t *testing.T, list []M) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, m := range list {
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Indent(&out, raw, "", " "); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// changing answers the versions of a golden's resources under a changed plan.
func changing(t *testing.T, golden string) func(change func(*plan.Plan)) map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, f.Name)), 0o700), os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	o := build.Options{
		ExtProc: build.Service{Address: "unix:/x"}, AccessLogFile: "/log", WasmFile: "/adapter.wasm", SystemCAFile: "/ca.pem",
	}
	return func(change func(*plan.Plan)) map[string]string {
		p := load(t, filepath.Join(dir, inputConfig))
		change(p)
		r, err := build.Build(p, o)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		note(t, out, "listeners", r.Listeners)
		note(t, out, "routes", r.Routes)
		note(t, out, "clusters", r.Clusters)
		note(t, out, "endpoints", r.Endpoints)
		note(t, out, "secrets", r.Secrets)
		note(t, out, "extensions", r.Extensions)
		return out
	}
}

// TestSameBytes: equal plans give equal versions, and only what changed changes.
func TestSameBytes(t *testing.T) {
	versions := changing(t, "testdata/pools.txtar")
	base := versions(func(*plan.Plan) {})
	for _, c := range []struct {
		name    string
		change  func(*plan.Plan)
		touches []string
	}{
		{"nothing", func(*plan.Plan) {}, nil},
		{"limits and keys", func(p *plan.Plan) { p.Limits, p.KeyList, p.Keys = nil, nil, nil }, nil},
		{"model names", func(p *plan.Plan) { p.ModelList[0].Name, p.Models = "renamed", nil }, nil},
		{"longer attempts", func(p *plan.Plan) { p.ModelList[0].AttemptTimeout *= 2 }, []string{"routes"}},
		{"larger bodies", func(p *plan.Plan) { p.Bounds.MaxBodyBytes *= 2 }, []string{"routes"}},
		{"another secret", func(p *plan.Plan) {
			for _, pool := range p.Pools {
				if pool.Credential != nil {
					pool.Credential.Value = "rotated"
				}
			}
		}, []string{"secrets"}},
		{"another weight", func(p *plan.Plan) {
			for _, pool := range p.Pools {
				if pool.Name == "gpu" {
					pool.Endpoints[0].Weight++
				}
			}
		}, []string{"endpoints"}},
		{"another address", func(p *plan.Plan) {
			for _, pool := range p.Pools {
				if pool.Name == "gpu" {
					pool.Endpoints[0].Host = "10.9.9.9"
				}
			}
		}, []string{"clusters", "endpoints"}}, // the cluster carries the Host header
		{"another model name", func(p *plan.Plan) { p.Pools[0].Model += "-v2" }, []string{"clusters", "endpoints"}}, // see byEDS
	} {
		t.Run(c.name, func(t *testing.T) { touches(t, base, versions(c.change), c.touches) })
	}
}

// Who may call, and from where, is in no listener; whether tokens are verified is.
func TestCallersTouchListeners(t *testing.T) {
	versions := changing(t, "testdata/callers.txtar")
	base := versions(func(*plan.Plan) {})
	for _, c := range []struct {
		name    string
		change  func(*plan.Plan)
		touches []string
	}{
		{"nothing", func(*plan.Plan) {}, nil},
		{"workloads", func(p *plan.Plan) { p.Workloads = plan.Workloads{} }, nil},
		{"networks", func(p *plan.Plan) { p.TeamNetworks = map[string]*plan.Network{"core": plan.NewNetwork(nil, nil)} }, nil},
		{"trusted proxies", func(p *plan.Plan) { p.Proxies = nil }, nil},
		{"bindings", func(p *plan.Plan) { p.TokenIssuers[0].Binding = nil }, nil},
		{"authorities of clients", func(p *plan.Plan) { p.Listeners[0].TLS.ClientCA = []byte("others") }, []string{"secrets"}},
		{"an audience", func(p *plan.Plan) { p.TokenIssuers[0].Audiences = []string{"weir"} }, []string{"extensions"}},
		{"keys in a file", func(p *plan.Plan) { p.TokenIssuers[0].KeySet = []byte(`{"keys": []}`) }, []string{"extensions"}},
		{"an issuer less", func(p *plan.Plan) { p.TokenIssuers = p.TokenIssuers[:1] }, []string{"extensions", "clusters"}},
		{"no issuers", func(p *plan.Plan) { p.TokenIssuers = nil }, []string{"listeners", "extensions", "clusters"}},
	} {
		t.Run(c.name, func(t *testing.T) { touches(t, base, versions(c.change), c.touches) })
	}
}

// touches checks that the versions of these kinds differ, and of no others.
func touches(t *testing.T, base, versions map[string]string, kinds []string) {
	t.Helper()
	for kind, version := range versions {
		if changed := version != base[kind]; changed != slices.Contains(kinds, kind) {
			t.Errorf("%s changed: %t", kind, changed)
		}
	}
}

func note[M proto.Message](t *testing.T, out map[string]string, name string, list []M) {
	t.Helper()
	v, err := build.Hash(list)
	if err != nil {
		t.Fatal(err)
	}
	out[name] = v
}

// TestNothingPanics: a plan that the compiler would refuse is an error here too.
func TestNothingPanics(t *testing.T) {
	good := build.Options{ExtProc: build.Service{Address: "unix:/x"}, AccessLogFile: "/log", WasmFile: "/a.wasm"}
	for _, c := range []struct {
		name string
		plan plan.Plan
		opts build.Options
		want string
	}{
		{"no options", plan.Plan{}, build.Options{}, "ext_proc service: no address"},
		{"relative files", plan.Plan{}, build.Options{ExtProc: good.ExtProc, AccessLogFile: "log", WasmFile: "a.wasm"}, `wasm file "a.wasm": not absolute`},
		{"plain text beyond loopback", plan.Plan{}, build.Options{ExtProc: build.Service{Address: "10.0.0.1:9000"}, AccessLogFile: "/l", WasmFile: "/w"}, "mutual TLS is required"},
		{"a replica twice", plan.Plan{}, build.Options{ExtProc: build.Service{Address: "127.0.0.1:1", Others: []string{"127.0.0.1:1"}}, AccessLogFile: "/l", WasmFile: "/w"}, "named twice"},
		{"a replica beyond loopback", plan.Plan{}, build.Options{ExtProc: build.Service{Address: "127.0.0.1:1", Others: []string{"10.0.0.1:1"}}, AccessLogFile: "/l", WasmFile: "/w"}, "mutual TLS is required"},
		{"replicas without a name", plan.Plan{}, build.Options{ExtProc: build.Service{Address: "a:1", Others: []string{"b:1"}, TLS: &build.ClientTLS{}}, AccessLogFile: "/l", WasmFile: "/w"}, "a server name that all of them prove"},
		{"long socket", plan.Plan{}, build.Options{ExtProc: build.Service{Address: "unix:/" + strings.Repeat("x", 120)}, AccessLogFile: "/l", WasmFile: "/w"}, "longer than 107 bytes"},
		{"no endpoints", plan.Plan{Pools: []*plan.Pool{{Name: "empty"}}}, good, `pool "empty": no endpoints`},
		{"no authorities", plan.Plan{Pools: []*plan.Pool{{Name: "p", Scheme: "https", Endpoints: []plan.Endpoint{{Host: "a"}}}}}, good, `pool "p": https endpoint`},
		{"listener name", plan.Plan{Listeners: []plan.Listener{{Name: "l", Address: "example.com:80"}}}, good, "on an IP address"},
		{"listener port", plan.Plan{Listeners: []plan.Listener{{Name: "l", Address: "127.0.0.1:99999"}}}, good, "port is not in 0 to 65535"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := build.Build(&c.plan, c.opts); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	// All faults at once.
	_, err := build.Build(&plan.Plan{Pools: []*plan.Pool{{Name: "a"}, {Name: "b"}}}, good)
	if fmt.Sprint(err) != "pool \"a\": no endpoints\npool \"b\": no endpoints" {
		t.Errorf("%v", err)
	}
}
