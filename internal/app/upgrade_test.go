package app

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A connection that is made between two weirs is accepted by the second.
func TestSocketsOutliveTheirListeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	for _, address := range []string{"unix:" + path, "127.0.0.1:0"} {
		t.Run(address, func(t *testing.T) {
			first, err := inheritSockets()
			if err != nil {
				t.Fatal(err)
			}
			l, err := first.listen("x", address)
			if err != nil {
				t.Fatal(err)
			}
			bound := l.Addr()
			env, err := first.keep()
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close()

			c, err := net.Dial(bound.Network(), bound.String())
			if err != nil {
				t.Fatalf("between the two: %v", err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("question\n")); err != nil {
				t.Fatal(err)
			}

			name, value, _ := strings.Cut(env, "=")
			t.Setenv(name, value)
			second, err := inheritSockets()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := os.LookupEnv(name); ok {
				t.Errorf("%s would be passed on", name)
			}
			if !second.has("x", address) {
				t.Fatalf("nothing was given for %s: %s", address, env)
			}
			l, err = second.listen("x", address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if got := l.Addr().String(); got != bound.String() {
				t.Errorf("listens at %s, before at %s", got, bound)
			}
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			if got, err := bufio.NewReader(accepted).ReadString('\n'); err != nil || got != "question\n" {
				t.Errorf("read %q, %v", got, err)
			}
			if second.has("x", address) {
				t.Error("the socket can be taken twice")
			}
		})
	}
}

// What nobody asks for is closed: a connection to it must not wait for ever.
func TestSocketsUntakenAreClosed(t *testing.T) {
	first, err := inheritSockets()
	if err != nil {
		t.Fatal(err)
	}
	l, err := first.listen("x", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	env, err := first.keep()
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	name, value, _ := strings.Cut(env, "=")
	t.Setenv(name, value)
	second, err := inheritSockets()
	if err != nil {
		t.Fatal(err)
	}
	second.closeUntaken()
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Errorf("%s is still bound", l.Addr())
	}
}

func TestSocketsMalformed(t *testing.T) {
	for _, text := range []string{"", "[]", `{"a":"b"}`} {
		t.Setenv(inheritedVar, text)
		if _, err := inheritSockets(); err == nil || !strings.Contains(err.Error(), inheritedVar) {
			t.Errorf("%q: %v", text, err)
		}
	}
	t.Setenv(inheritedVar, `{"x 127.0.0.1:0":9999}`)
	s, err := inheritSockets()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.listen("x", "127.0.0.1:0"); err == nil {
		t.Error("a descriptor that is not open was taken")
	}
}

// Two sockets that asked for any free port are not taken for each other.
func TestSocketsWithEqualAddresses(t *testing.T) {
	first, err := inheritSockets()
	if err != nil {
		t.Fatal(err)
	}
	bound := map[string]string{}
	for _, name := range []string{"grpc", "admin"} {
		l, err := first.listen(name, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		bound[name] = l.Addr().String()
		defer l.Close()
	}
	env, err := first.keep()
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(env, "=")
	t.Setenv(name, value)
	second, err := inheritSockets()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range bound {
		l, err := second.listen(name, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if got := l.Addr().String(); got != want {
			t.Errorf("%s listens at %s, before at %s", name, got, want)
		}
	}
}

// After keep, one more connection must not make the end of the listener wait for another.
func TestKeptListenerCloses(t *testing.T) {
	s, err := inheritSockets()
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.listen("admin", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	time.Sleep(50 * time.Millisecond)
	if _, err := s.keep(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String()) // a scrape or a probe while weir ends
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	time.Sleep(50 * time.Millisecond)
	done := make(chan struct{})
	go func() { _ = l.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Fatal("Close hangs: keep made the socket blocking, and Accept sits in the system call")
	}
}
