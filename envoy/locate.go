package envoy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// Binary is an Envoy that was found.
type Binary struct {
	Path    string // absolute, links resolved
	Version string // as 1.40.0
	From    string // what named it: --envoy, WEIR_ENVOY, .tools, PATH
}

// Warning says what to think of a binary that is not the pinned one; "" for
// the pinned one.
func (b Binary) Warning() string {
	if b.Version == Version {
		return ""
	}
	return fmt.Sprintf("envoy %s (%s) is version %s; weir is tested with %s", b.Path, b.From, b.Version, Version)
}

// ErrNotFound says that there is no Envoy, and how to get one.
var ErrNotFound = errors.New("no Envoy found: run make setup, or name a binary with --envoy or WEIR_ENVOY")

// Locate finds the binary: the flag, then WEIR_ENVOY, then
// .tools/envoy-<Version>/envoy above the working directory and above weir's own
// executable, then PATH. What the flag or the variable names must be there; in
// PATH only an Envoy of the pinned minor version counts.
func Locate(ctx context.Context, flag string) (Binary, error) {
	if flag != "" {
		return inspect(ctx, flag, "--envoy")
	}
	if env := os.Getenv("WEIR_ENVOY"); env != "" {
		return inspect(ctx, env, "WEIR_ENVOY")
	}
	for _, start := range startDirs() {
		if path := upward(start); path != "" {
			return inspect(ctx, path, ".tools")
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		return Binary{}, ErrNotFound
	}
	b, err := inspect(ctx, path, "PATH")
	if err != nil {
		return Binary{}, err
	}
	if minor(b.Version) != minor(Version) {
		return Binary{}, fmt.Errorf("%w (%s is version %s)", ErrNotFound, b.Path, b.Version)
	}
	return b, nil
}

func startDirs() []string {
	var dirs []string
	if wd, err := os.Getwd(); err == nil {
		dirs = append(dirs, wd)
	}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			dirs = append(dirs, filepath.Dir(exe))
		}
	}
	return dirs
}

// upward looks for the installed binary in dir and in what contains it.
func upward(dir string) string {
	for {
		path := filepath.Join(dir, ".tools", "envoy-"+Version, "envoy")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// versionLine is what `envoy --version` prints: hash/version/tree/build/tls.
var versionLine = regexp.MustCompile(`version: [0-9a-f]+/([0-9]+\.[0-9]+\.[0-9]+)`)

func inspect(ctx context.Context, path, from string) (Binary, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Binary{}, fmt.Errorf("%s: %w", from, err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return Binary{}, fmt.Errorf("%s: %w", from, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, abs, "--version").Output()
	if err != nil {
		return Binary{}, fmt.Errorf("%s: %s --version: %w", from, abs, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return Binary{}, fmt.Errorf("%s: %s does not say that it is an Envoy", from, abs)
	}
	return Binary{Path: abs, Version: string(m[1]), From: from}, nil
}

func minor(version string) string {
	return version[:len(version)-len(filepath.Ext(version))]
}

// systemCAFiles are where distributions keep the bundle of authorities:
// Debian, Fedora and RHEL, openSUSE, Alpine.
var systemCAFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// SystemCAFile is this machine's bundle of certificate authorities, or "" when
// there is none. SSL_CERT_FILE names another one.
func SystemCAFile() string {
	for _, path := range append([]string{os.Getenv("SSL_CERT_FILE")}, systemCAFiles...) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}
