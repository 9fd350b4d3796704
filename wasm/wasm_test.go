package wasm

import (
	"strings"
	"testing"
	"testing/fstest"
)

// A weir that was built without its filter says so, and how to build it.
func TestMissing(t *testing.T) {
	without := fstest.MapFS{"dist/README.md": {}}
	if _, err := read(without); err == nil || !strings.Contains(err.Error(), "adapter.wasm was not built: run make build") {
		t.Errorf("error %v", err)
	}
	with := fstest.MapFS{"dist/adapter.wasm": {Data: []byte("\x00asm")}}
	if got, err := read(with); err != nil || string(got) != "\x00asm" {
		t.Errorf("got %q, %v", got, err)
	}
}
