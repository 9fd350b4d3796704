package e2e

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/simulate"
)

// The official client notices each way in which a stream breaks off, and the usage says
// that it did.
func TestStreamThatBreaksOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	two := 2
	for i, tc := range []struct {
		name, raised, failure string
		fault                 simulate.Fault
	}{
		{"cut", "openai.APIConnectionError", "reset", simulate.Fault{Chunks: 9, ChunkDelayMS: 20, CutAfterChunks: &two}},
		{"reset", "openai.APIConnectionError", "reset", simulate.Fault{Chunks: 9, ChunkDelayMS: 20, CutAfterChunks: &two, Reset: true}},
		{"no end", "openai.APIError", "interrupted", simulate.Fault{Chunks: 9, ChunkDelayMS: 20, EndAfterChunks: &two}},
	} {
		w.a.fault(t, tc.fault)
		w.b.fault(t)
		got := python(t, w, "broken_stream")
		if got["raised"] != tc.raised || got["content"] == "" || tc.failure == "interrupted" && got["code"] != "stream_interrupted" {
			t.Errorf("%s: the client has %v", tc.name, got)
		}
		w.a.received(t, 1)
		w.b.received(t, 0)
		eventually(t, 10*time.Second, func() string {
			failed := int64(0)
			for _, row := range w.usage(t) {
				if row.Outcome == "failed" {
					failed += row.Requests
				}
			}
			if failed != int64(i+1) {
				return fmt.Sprintf("%d requests failed, want %d", failed, i+1)
			}
			if lineWith(w.log.String(), "tried a 200 "+tc.failure, "200 failed") == "" {
				return "no request line says " + tc.failure + ":\n" + last(w.log.String(), 1500)
			}
			return ""
		})
	}
}

// A stream that falls silent ends when its pool's time is up, long before any attempt
// would; one that goes on does not.
func TestStreamThatFallsSilent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "    connect_timeout: 1s\n  - name: b\n", "    connect_timeout: 1s\n    stream_idle_timeout: 1s\n  - name: b\n")
	w.a.fault(t, simulate.Fault{Chunks: 9, ChunkDelayMS: 600})
	w.b.fault(t)
	if got := python(t, w, "broken_stream"); got["raised"] != "" {
		t.Errorf("a stream that goes on: the client has %v", got)
	}
	w.a.fault(t, simulate.Fault{Chunks: 9, ChunkDelayMS: 2500})
	began := time.Now()
	got := python(t, w, "broken_stream")
	if took := time.Since(began); got["raised"] != "openai.APIConnectionError" || got["content"] == "" || took > 20*time.Second {
		t.Errorf("after %v the client has %v", took, got)
	}
	w.b.received(t, 0)
	eventually(t, 10*time.Second, func() string {
		if lineWith(w.log.String(), "tried a 200 stream_idle_timeout", "200 failed") == "" {
			return "no request line says so:\n" + last(w.log.String(), 1500)
		}
		return ""
	})
}

// An endpoint that does not answer connections costs no more than the connect timeout.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// A check would find it ill before the request comes.
	w.write(edited(t, edited(t, w.yaml, w.a.url, "http://"+deafAddress(t)),
		"    connect_timeout: 1s\n  - name: b\n", "    connect_timeout: 1s\n    health_check: {off: true}\n  - name: b\n"))
	eventually(t, 10*time.Second, func() string {
		if strings.Contains(w.log.String(), "configuration applied") {
			return ""
		}
		return "the change is not in force"
	})
	w.b.fault(t)
	began := time.Now()
	got := w.chat("chat")
	if took := time.Since(began); got.status != 200 || got.header.Get("x-simulator") != "b" || took < 900*time.Millisecond || took > 2900*time.Millisecond {
		t.Errorf("status %d from %q after %v, with a connect timeout of 1s: %s", got.status, got.header.Get("x-simulator"), took, got.body)
	}
}

// deafAddress is an address of this machine that answers no connection: its queue is
// full, so that the kernel drops what asks for one.
func deafAddress(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 8 {
		conn, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("connections are still answered")
	return ""
}
