package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	rustFolder = "benchmarks/tokens/rust"
	rustTarget = "bin/rust"
	rustBinary = "bpe-openai-worker"
)

// buildRust builds the worker of the Rust crate, which takes a minute the first
// time, and returns its path.
func buildRust(ctx context.Context, root string) (string, error) {
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		return "", errors.New("missing tool: cargo, 1.85 or later, of a Rust toolchain: " + rustFolder + " is built with it, the peer " + bpeOpenAI)
	}
	target := filepath.Join(root, rustTarget)
	cmd := exec.CommandContext(ctx, cargo, "build", "--release", "--locked", "--quiet", "--manifest-path", filepath.Join(root, rustFolder, "Cargo.toml"))
	cmd.Env = append(os.Environ(), "CARGO_TARGET_DIR="+target)
	progress("cargo build %s", rustFolder)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cargo build %s: %w: %s", rustFolder, err, bytes.TrimSpace(out))
	}
	return filepath.Join(target, "release", rustBinary), nil
}

// lockedVersion is the version of a crate in a Cargo.lock.
func lockedVersion(lock []byte, crate string) string {
	_, after, found := strings.Cut(string(lock), "\nname = \""+crate+"\"\nversion = \"")
	version, _, ended := strings.Cut(after, "\"")
	if !found || !ended {
		return "unknown version"
	}
	return version
}
