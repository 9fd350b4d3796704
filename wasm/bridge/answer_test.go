package bridge

import (
	"bytes"
	"testing"
)

// The ABI's form of a header map, written out by hand.
func TestAppendMap(t *testing.T) {
	got := appendMap([]byte("x"), [][2]string{{"content-type", "a"}, {"b", ""}})
	want := []byte("x\x02\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00content-type\x00a\x00b\x00\x00")
	if !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
