// Package bridge lets the proxy-wasm Go SDK, which is written for TinyGo, run
// under the standard Go toolchain (GOOS=wasip1 GOARCH=wasm
// -buildmode=c-shared). Import it for its effect from the filter's main
// package; on every other platform it is empty but for the few calls of
// splice.go, so that filters are tested with the SDK's emulator under plain
// `go test`.
//
// How it works: off TinyGo the SDK sends each host call to an interface that
// its tests fake. The bridge implements that interface with the real host
// imports (host_wasip1.go, generated) and exports the SDK's callbacks under the
// names that the host looks up (exports_wasip1.go).
//
// What makes that delicate:
//   - Go's ints and pointers are 64 bits wide in wasm and the ABI's are 32, so
//     the host never gets a pointer to a Go int or to a Go pointer: it writes
//     into uint32 variables.
//   - The host holds buffers as integers, which the garbage collector does not
//     see: each is pinned from its allocation until the host call that asked
//     for it takes it.
//   - The SDK's interface is matched by method names and machine-level types, so
//     the SDK's version is pinned, and a test compares the generated file with
//     what that version gives.
//   - main is not run in a reactor: a filter registers itself in init.
package bridge

//go:generate go run ./gen -o host_wasip1.go
