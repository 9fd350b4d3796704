package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// An upgrade in place: weir ends its decisions under way, puts everything on disk as
// at any end, and then becomes the program that lies where it was started from. The
// process id stays, and so does Envoy. The sockets stay bound across it: what Envoy
// asks meanwhile waits in the kernel and is answered by the new weir.

// inheritedVar names the listening sockets that the next weir is given: keys by
// socketKey, and file descriptors, in JSON.
const inheritedVar = "WEIR_INHERITED_SOCKETS"

// checkTimeout bounds the look of the next weir at the configuration.
const checkTimeout = 30 * time.Second

// socketKey is what a socket is for and its address as asked for: two may have asked
// for any free port.
func socketKey(name, address string) string { return name + " " + address }

// sockets are the listeners that outlive an upgrade, by socketKey.
type sockets struct {
	given map[string]int // from the weir before
	bound map[string]net.Listener
}

// inheritSockets reads what the weir before gave; it is not passed on to any child.
func inheritSockets() (*sockets, error) {
	s := &sockets{given: map[string]int{}, bound: map[string]net.Listener{}}
	text, ok := os.LookupEnv(inheritedVar)
	if !ok {
		return s, nil
	}
	if err := os.Unsetenv(inheritedVar); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(text), &s.given); err != nil {
		return nil, fmt.Errorf("%s: %w", inheritedVar, err)
	}
	for _, fd := range s.given {
		syscall.CloseOnExec(fd)
	}
	return s, nil
}

// has tells whether a socket was given and not taken yet.
func (s *sockets) has(name, address string) bool {
	_, ok := s.given[socketKey(name, address)]
	return ok
}

// listen takes the socket that was given for an address, or else binds it.
func (s *sockets) listen(name, address string) (net.Listener, error) {
	key := socketKey(name, address)
	l, err := s.take(key)
	if l == nil && err == nil {
		l, err = listen(address)
	}
	if err != nil {
		return nil, err
	}
	s.bound[key] = l
	return l, nil
}

// take is nil where nothing was given.
func (s *sockets) take(key string) (net.Listener, error) {
	fd, ok := s.given[key]
	if !ok {
		return nil, nil //nolint:nilnil // said above
	}
	delete(s.given, key)
	f := os.NewFile(uintptr(fd), key)
	if f == nil {
		return nil, fmt.Errorf("%s: %d is no file descriptor", inheritedVar, fd)
	}
	defer func() { _ = f.Close() }() // the listener has its own
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", inheritedVar, key, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true)
	}
	return l, nil
}

// closeUntaken ends what nobody asked for: the configuration names another address.
func (s *sockets) closeUntaken() {
	for key, fd := range s.given {
		_ = syscall.Close(fd)
		delete(s.given, key)
	}
}

// keep makes the bound sockets outlive their listeners and this program, and gives
// the environment that tells the next one of them.
func (s *sockets) keep() (env string, err error) {
	kept := map[string]int{}
	for key, l := range s.bound {
		source, ok := l.(syscall.Conn)
		if !ok {
			return "", fmt.Errorf("%s: not a socket that can be kept", key)
		}
		raw, err := source.SyscallConn()
		if err != nil {
			return "", err
		}
		// Without the flag that closes it on exec. Not by File and Fd: that makes the socket
		// block, for its listener too, whose Close then waits for one more connection.
		var fd int
		if controlErr := raw.Control(func(listening uintptr) { fd, err = syscall.Dup(int(listening)) }); controlErr != nil {
			err = controlErr
		}
		if err != nil {
			return "", err
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		kept[key] = fd
	}
	text, err := json.Marshal(kept)
	return inheritedVar + "=" + string(text), err
}

// nextProgram is the weir to become, which must have found the configuration good:
// what runs goes on rather than ends in one that cannot start.
func (a *app) nextProgram(ctx context.Context) (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	args, err := a.validation()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput() //nolint:gosec // weir itself
	if err != nil {
		return "", fmt.Errorf("%s validate: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	return path, nil
}

// validation are the arguments with which the next weir checks what it would start with:
// the file, or the version that a rollback pinned. Only then is it asked for more than
// earlier weirs know.
func (a *app) validation() ([]string, error) {
	s, err := readSource(a.versions, a.o.ConfigPath)
	if err != nil && s.pin == nil {
		return nil, err
	}
	if s.pin == nil {
		return []string{"validate", a.o.ConfigPath}, nil
	}
	return []string{"validate", "--in-force", "--data", a.dir, a.o.ConfigPath}, nil
}

// upgrade stops weir and becomes the next one. It returns only if it cannot: with
// stopped, weir does not run any more, and without an error it was asked to stop
// meanwhile.
func (a *app) upgrade(ctx context.Context) (stopped bool, err error) {
	path, err := a.nextProgram(ctx)
	if err != nil {
		return false, err
	}
	env, err := a.sockets.keep()
	if err != nil {
		return true, err // some sockets may be kept already: better an end that is seen
	}
	a.log.Info("upgrading: the next weir takes over", "program", path)
	a.upgrading = true
	a.stop()
	if ctx.Err() != nil {
		return true, nil //nolint:nilerr // it was told to stop, and has
	}
	signal.Ignore(syscall.SIGUSR2)                               // the default would end the next weir before it listens for it
	err = syscall.Exec(path, os.Args, append(os.Environ(), env)) //nolint:gosec // weir itself
	return true, fmt.Errorf("exec %s: %w", path, err)
}
