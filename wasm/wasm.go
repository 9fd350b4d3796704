// Package wasm holds the Wasm filters that weir gives to Envoy, as built, and
// what Envoy must be told to run them. The filters' own code is in the packages
// below it; this one is part of weir and of no filter.
package wasm

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
)

// PluginName is the adapter's plugin name, root id and VM id in Envoy. The
// configuration of the plugin must be the same in all clusters: then each worker
// has one VM for all of them.
const PluginName = "weir.adapter"

// dist is embedded as a directory that always has a file, so that the package
// compiles before the filters are built.
//
//go:embed dist
var dist embed.FS

// Adapter is the adapter filter's file. It fails when weir was built without it.
func Adapter() ([]byte, error) { return read(dist) }

func read(dist fs.FS) ([]byte, error) {
	file, err := fs.ReadFile(dist, "dist/adapter.wasm")
	if err != nil {
		return nil, fmt.Errorf("adapter.wasm was not built: run make build: %w", err)
	}
	return file, nil
}

// Digest is the SHA-256 of the adapter's file in lower-case hex. A file name
// with it in it never changes its content, which Envoy relies on: it compiles a
// file once.
func Digest() (string, error) {
	file, err := Adapter()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(file)
	return hex.EncodeToString(sum[:]), nil
}

// environment tunes the Go runtime in the filter's VM.
var environment = map[string]string{}

// Environment is the environment variables of the adapter's VM.
func Environment() map[string]string { return maps.Clone(environment) }
